"""Training the backbone: published only if templates are found as well, taken up again, told while it runs."""

import json

import pytest
from fastapi import HTTPException

pytest.importorskip("lightly", reason="fewshot[pretrain] is not installed")

from fewshot.features import load_backbone
from fewshot.pretraining import PretrainSettings
from fewshot.pretraining.run import STATE, PretrainResult
from lib.infers import Segmentation
from lib.models import FittedModels, PublishedModels
from lib.trainers import AdapterTrainer, BackboneTrainer
from lib.trainers.stats import BackboneStats
from tests.backbones import write_blind_backbone, write_tiny_backbone
from tests.unit.conftest import blobs
from tests.unit.lib.conftest import write_study

LABELS = blobs(0)[1]
TINY = {
    "batch": 4,
    "global_pixels": 32,
    "local_pixels": 16,
    "size": 64,
    "local_crops": 1,
    "prototypes": 8,
    "places": 8,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """So few epochs and seeds tell good from useless, not more."""
    monkeypatch.setattr("lib.trainers.publishing.SEEDS", 1)
    monkeypatch.setattr("lib.trainers.backbone.TOLERANCE", 0.1)


@pytest.fixture
def project(open_project):
    return open_project(size="64", max_epochs="2")


@pytest.fixture
def trainer(project):
    return BackboneTrainer("backbone", project, description="test")


@pytest.fixture
def templates(project, submit):
    """Both studies are labelled."""
    for seed, image in enumerate("ab"):
        submit(project, image, blobs(seed)[1], ["bright", "dark"])


@pytest.fixture
def adapters(project, templates):
    """One model is trained, too."""
    models = PublishedModels("fewshot_classification", project)
    AdapterTrainer(models, project, adapter="classification", description="test")({}, project.datastore)
    return models


class Pretraining:
    """Stands in for the engine's pretraining, whose result nobody can foretell."""

    def __init__(self):
        self.calls = []
        self.good, self.die, self.failed = True, None, {}

    def __call__(self, readers, out, *, start, settings, device, progress, left_out):
        self.calls.append((sorted(readers), out, start, settings))
        left_out(self.failed)
        progress("slices", len(readers), len(readers))
        progress("pretrain", 8, 16, images_per_second=2.0, seconds_left=4.0, loss=1.0)
        out.with_suffix(".run").mkdir(parents=True, exist_ok=True)
        if self.die:
            if self.die is SystemExit:  # as a kill leaves it, which nothing in Python notices
                (out.with_suffix(".run") / STATE).touch()
            raise self.die
        (write_tiny_backbone if self.good else write_blind_backbone)(out)
        return PretrainResult(out, 16, 1.0, self.failed, False, True, True)


@pytest.fixture
def pretraining(monkeypatch):
    stand_in = Pretraining()
    monkeypatch.setattr("fewshot.pretraining.pretrain", stand_in)
    return stand_in


@pytest.fixture
def verdict(monkeypatch, pretraining):
    """A comparison that takes no time and finds what the stand-in meant."""

    def compare(*_, **__):
        return {"old": {"bright": 0.8}, "new": {"bright": 0.8 if pretraining.good else 0.2}}

    monkeypatch.setattr("lib.trainers.backbone.compare", compare)


def state_of(project):
    """All that a server works with."""
    folder = project.workspace.folder
    kept = [
        path for path in folder.rglob("*") if path.is_file() and path.parts[len(folder.parts)] != "backbones"
    ]
    return {
        path: path.read_bytes() for path in kept if path.parent.name != "stats" and path.suffix != ".lock"
    }


def sentence(call, *arguments):
    with pytest.raises(HTTPException) as refusal:
        call(*arguments)
    return refusal.value.status_code, refusal.value.detail


class TestPublishing:
    def test_an_equal_backbone_is_published_with_all_adapters(
        self, trainer, project, adapters, pretraining, studies
    ):
        old = adapters.load()
        basic = FittedModels("basic", project)
        assert basic.load(device="cpu").backbone == "random-tiny"
        result = trainer({"device": ["cpu"]}, project.datastore)
        (_, out, start, _) = pretraining.calls[0]
        assert start == "random-tiny"
        assert (result["outcome"], result["epoch"], result["total_epochs"]) == ("published", 100, 100)
        assert result["best_metric"] == pytest.approx(sum(result["dice"]["new"].values()) / 2, abs=1e-3)
        assert project.workspace.backbone_now() == project.engine.name == str(out)
        new, digest = adapters.load(), load_backbone(str(out), device="cpu").digest
        assert adapters.versions()[0] == result["versions"]["fewshot_classification"]
        assert new.backbone_digest == digest != old.backbone_digest
        assert (new.labels, new.adapter.options) == (old.labels, old.adapter.options)
        assert basic.load(device="cpu").backbone_digest == digest
        task = Segmentation(adapters, project, description="test")
        for version, fitted in (("latest", new), (adapters.versions()[1], old)):
            _, found = task({"image": str(studies / "b.nii.gz"), "device": "cpu", "version": version})
            assert found["provenance"]["backbone"]["digest"] == fitted.backbone_digest

    def test_a_worse_backbone_changes_nothing(self, trainer, project, adapters, pretraining):
        pretraining.good, before = False, state_of(project)
        result = trainer({}, project.datastore)
        assert state_of(project) == before
        assert result["outcome"] == "refused"
        old, new = (sum(result["dice"][which].values()) / 2 for which in ("old", "new"))
        assert new < old == pytest.approx(result["best_metric"], abs=1e-3)
        assert f"{new:.3f} with the new and {old:.3f} with the old one" in result["message"]
        assert project.engine.name == "random-tiny"

    def test_a_failure_while_adapters_are_made_changes_nothing(
        self, trainer, project, adapters, pretraining, monkeypatch
    ):
        before = state_of(project)

        def fail(*_, **__):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as broken:
            broken.setattr(project.engine, "fit", fail)
            with pytest.raises(RuntimeError):
                trainer({}, project.datastore)
        assert state_of(project) == before
        assert trainer.stats()["error"] == "out of memory"
        assert trainer({}, project.datastore)["outcome"] == "published"
        assert len(pretraining.calls) == 1, "the backbone was trained already"

    def test_what_nothing_needs_goes_when_the_next_training_begins(
        self, trainer, project, templates, pretraining, verdict
    ):
        def kept():
            return sorted(int(path.name[:4]) for path in project.workspace.backbones.glob("*.safetensors"))

        trainer({}, project.datastore)
        pretraining.good = False
        trainer({}, project.datastore)
        assert kept() == [1, 2]
        assert not list(project.workspace.backbones.rglob(STATE))
        trainer({}, project.datastore)
        assert kept() == [1, 3]
        assert [call[2] for call in pretraining.calls] == [
            "random-tiny",
            *2 * [project.workspace.backbone_now()],
        ]


class TestWithoutTemplates:
    def test_it_waits_until_it_can_be_compared(self, trainer, project, submit, pretraining, verdict):
        result = trainer({}, project.datastore)
        assert result["outcome"] == "waiting"
        assert "trained but not published: there is no template" in result["message"]
        assert project.engine.name == "random-tiny"
        status, detail = sentence(trainer.check, {})
        assert status == 409
        assert "waits to be compared" in detail
        trainer.check({"restart": True})
        submit(project, "a", LABELS, ["bright", "dark"])
        assert trainer({}, project.datastore)["outcome"] == "published"
        assert len(pretraining.calls) == 1

    def test_too_little_is_labelled_to_compare(self, trainer, project, submit, pretraining):
        one = LABELS.copy()
        one[..., :4] = one[..., 5:] = 0
        submit(project, "a", one, ["bright", "dark"])
        result = trainer({}, project.datastore)
        assert (result["outcome"], "two slices" in result["message"]) == ("waiting", True)

    def test_there_must_be_studies(self, trainer, project):
        project.datastore.list_images = list
        status, detail = sentence(trainer.check, {})
        assert (status, detail[:32]) == (409, "There is no study to train on: p")


class TestInterrupted:
    def test_it_goes_on_with_the_same_studies(
        self, trainer, project, templates, studies, pretraining, verdict
    ):
        pretraining.die = SystemExit
        with pytest.raises(SystemExit):
            trainer({"minutes": 7, "settings": {"batch": 4}}, project.datastore)
        write_study(studies, "c", 2)
        project.datastore._reconcile_datastore()
        assert "c" in project.datastore.list_images()
        assert trainer.config()["minutes"] == 7
        pretraining.die = None
        result = trainer({}, project.datastore)
        first, second = pretraining.calls
        assert first == second
        assert first[0] == ["studies/a", "studies/b"]
        assert first[3] == PretrainSettings(minutes=7, images=0, batch=4, save_seconds=first[3].save_seconds)
        assert result["resumed"]
        assert result["outcome"] == "published"
        assert trainer.config()["minutes"] == 30

    def test_other_options_are_refused_or_begin_anew(self, trainer, project, templates, pretraining, verdict):
        pretraining.die = SystemExit
        with pytest.raises(SystemExit):
            trainer({"minutes": 7}, project.datastore)
        assert "begun with other minutes" in sentence(trainer.check, {"minutes": 8})[1]
        assert sentence(trainer.check, {"start": "scratch", "images": 5})[1].count("images and start") == 1
        pretraining.die = None
        result = trainer({"minutes": 8, "restart": True}, project.datastore)
        assert not result["resumed"]
        assert [settings.minutes for *_, settings in pretraining.calls] == [7, 8]
        assert pretraining.calls[0][1] != pretraining.calls[1][1]
        assert not pretraining.calls[0][1].with_suffix(".run").exists()

    def test_one_that_never_began_leaves_nothing(self, trainer, project, templates, pretraining, verdict):
        pretraining.die = RuntimeError("cannot be trained")
        with pytest.raises(RuntimeError):
            trainer({"start": "scratch"}, project.datastore)
        assert trainer.stats()["error"] == "cannot be trained"
        assert not list(project.workspace.backbones.iterdir())
        trainer.check({"start": "current"})

    def test_one_stopped_in_the_moment_of_publishing_is_not_compared_with_itself(
        self, trainer, project, templates, pretraining, verdict, monkeypatch
    ):
        with monkeypatch.context() as broken:
            note = type(trainer._runs).note
            broken.setattr(
                type(trainer._runs),
                "note",
                lambda runs, run, state=None: (
                    (_ for _ in ()).throw(SystemExit) if state == "published" else note(runs, run, state)
                ),
            )
            with pytest.raises(SystemExit):
                trainer({}, project.datastore)
        assert project.engine.name == str(pretraining.calls[0][1])
        trainer({}, project.datastore)
        assert len(pretraining.calls) == 2


class TestStatistics:
    def test_viewers_see_it_advance(self, trainer, project, adapters, pretraining, monkeypatch):
        seen = []
        write = BackboneStats._write
        monkeypatch.setattr("lib.trainers.stats.INTERVAL", 0)
        monkeypatch.setattr(
            BackboneStats, "_write", lambda stats: (write(stats), seen.append(trainer.stats()))
        )
        trainer({}, project.datastore)
        assert list(dict.fromkeys(entry["stage"] for entry in seen))[1:] == list(BackboneStats.STAGES)
        epochs = [entry["epoch"] for entry in seen]
        assert epochs == sorted(epochs)
        assert not any("total_time" in entry for entry in seen), "Slicer would take it for finished"
        (halfway,) = {json.dumps(entry["pretrain"]) for entry in seen if entry["stage"] == "pretrain"}
        assert json.loads(halfway) == {"images": 8, "images_per_second": 2.0, "seconds_left": 4, "loss": 1.0}
        assert {"a", "b"} == set(trainer.stats()["templates"])

    def test_the_banks_progress_is_among_them(self, trainer, project):
        assert trainer.stats() == {}
        project.workspace.bank.write_text('{"done": 1, "total": 3}')
        assert trainer.stats()["bank"] == {"done": 1, "total": 3}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"minutes": "soon"}, "minutes is 'soon'"),
        ({"minutes": 1e9}, "at most 10080"),
        ({"images": -1}, "images is -1"),
        ({"start": "nowhere"}, "start is nowhere: give current, scratch"),
        ({"start": "auto"}, "start is auto"),
        ({"settings": {"batch": 1}}, "batch=1"),
        ({"settings": {"bach": 8}}, "no setting bach"),
        ({"settings": 7}, "settings is 7"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(trainer, request_, words):
    status, detail = sentence(trainer.check, request_)
    assert status == 422
    assert words in detail


@pytest.mark.parametrize("emptied", [None, "", float("nan")])
def test_an_emptied_field_means_the_default(trainer, emptied):
    trainer.check({"minutes": emptied, "images": emptied, "start": emptied, "restart": emptied})


def test_options_as_viewers_can_show_them(trainer):
    config = trainer.config()
    assert (config["minutes"], config["images"], config["start"][0]) == (30, 0, "current")
    assert all(
        isinstance(choice, str) for choices in (config["start"], config["device"]) for choice in choices
    )


def test_with_the_real_engine_a_bad_study_is_left_out_and_named(trainer, project, submit, studies):
    (studies / "broken.nii.gz").write_bytes(b"no image")
    project.datastore._reconcile_datastore()
    submit(project, "a", LABELS, ["bright", "dark"])
    result = trainer({"images": 8, "minutes": 5, "settings": TINY}, project.datastore)
    assert list(result["skipped"]) == ["broken"]
    assert "cannot be read" in result["skipped"]["broken"]
    assert result["studies"] == 3
    assert result["pretrain"]["images"] == 8
    assert result["outcome"] in ("published", "refused")
    file = next(project.workspace.backbones.glob("*.safetensors"))
    assert load_backbone(str(file), device="cpu").digest != load_backbone("random-tiny", device="cpu").digest
    assert list(file.with_suffix(".run").rglob("*.png")), "pictures of the features are kept"
