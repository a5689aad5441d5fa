"""Training publishes an adapter and says how far it is; a failed one changes nothing."""

import json
import time
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from filelock import FileLock

from fewshot.adapters import ADAPTERS
from fewshot.errors import FewshotError
from lib.background import STOPPED, Ended
from lib.files import read_json
from lib.models import PublishedModels
from lib.trainers import AdapterTrainer
from lib.trainers.adapter import OTHERS, SAME, UNKNOWN, expectation
from lib.trainers.base import ABANDONED
from lib.trainers.stats import TrainingStats
from tests.unit.conftest import blobs

LABELS = blobs(0)[1]


@pytest.fixture
def project(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    return project


@pytest.fixture
def trainer(project):
    return AdapterTrainer(
        PublishedModels("fewshot", project), project, adapter="contrastive", description="test"
    )


def test_a_training(trainer, project):
    assert trainer.stats() == {}
    result = trainer({"max_epochs": 2, "device": ["cpu"]}, project.datastore)
    assert "expected_dice" not in result
    assert trainer.models.versions() == [result["version"]]
    assert trainer.models.load().labels == {"bright": 1, "dark": 2}
    assert result == trainer.stats()
    assert (result["epoch"], result["total_epochs"]) == (2, 2)
    assert 0 < result["best_metric"] <= 1
    assert result["total_time"].startswith("0:00:")
    assert not {"current_time", "stage"} & set(result)


def test_the_default_adapter_says_what_to_expect(open_project, submit, caplog):
    project = open_project()
    for seed, image in enumerate("ab"):
        submit(project, image, blobs(seed)[1], ["bright", "dark"])
    trainer = AdapterTrainer(PublishedModels("fewshot", project), project, adapter="auto", description="test")
    with caplog.at_level("INFO"):
        result = trainer({"max_epochs": 2}, project.datastore)
    assert (result["epoch"], result["expected_dice_of"]) == (2, OTHERS)
    assert 0.3 < result["expected_dice"] <= 1
    assert trainer.stats()["expected_dice"] == result["expected_dice"]
    assert f"Expected Dice of fewshot: {result['expected_dice']}, of other patients" in caplog.text


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"expected_dice": 0.81239, "other_patients": 1.0}, (0.812, OTHERS)),
        ({"expected_dice": 0.5, "other_patients": 0.0}, (0.5, SAME)),
        ({"accuracy": 0.9}, (None, UNKNOWN)),
    ],
)
def test_how_much_can_be_expected_depends_on_what_was_left_out(scores, expected):
    assert tuple(expectation(SimpleNamespace(scores=scores)).values()) == expected


def test_statistics_change_while_it_runs(trainer, project, monkeypatch):
    seen = []
    monkeypatch.setattr("lib.trainers.stats.INTERVAL", 0)
    publish = TrainingStats.progress

    def look(stats, *arguments, **values):
        publish(stats, *arguments, **values)
        seen.append(json.loads(trainer._stats.read_text()))

    monkeypatch.setattr(TrainingStats, "progress", look)
    trainer({"max_epochs": 3}, project.datastore)
    assert [entry["epoch"] for entry in seen if entry["stage"] == "train"] == [1, 2, 3]
    assert not any("total_time" in entry for entry in seen), "Slicer would take it for finished"
    assert {"features", "train"} <= {entry["stage"] for entry in seen}


def test_a_failed_training_keeps_the_adapter_and_says_why(trainer, project, studies):
    version = trainer({"max_epochs": 1}, project.datastore)["version"]
    (studies / "a.nii.gz").write_bytes(b"broken")
    with pytest.raises(FewshotError, match="cannot be read"):
        trainer({"max_epochs": 1}, project.datastore)
    assert trainer.models.versions() == [version]
    assert "cannot be read" in trainer.stats()["error"]
    assert not trainer.running()


def test_a_training_that_cannot_begin_is_seen_to_have_failed(trainer, project):
    trainer({"max_epochs": 1}, project.datastore)
    with pytest.raises(HTTPException):
        trainer({"max_epochs": "many"}, project.datastore)
    assert trainer.stats()["error"] == "max_epochs is 'many': give a whole number of at least 1."
    assert "version" not in trainer.stats()


def test_one_that_is_asked_to_end_says_so(trainer, project, monkeypatch):
    def end(*_, **__):
        raise Ended(STOPPED)

    monkeypatch.setattr(project.engine, "fit", end)
    with pytest.raises(Ended):
        trainer({"max_epochs": 1}, project.datastore)
    assert trainer.stats()["error"] == STOPPED
    assert "total_time" in json.loads(trainer._stats.read_text())
    assert not trainer.running()


def test_one_that_was_killed_is_not_shown_as_running(trainer, project):
    """`kill -9`, as a viewer's *Stop* does it, leaves statistics as they are in the middle."""
    stats = TrainingStats(trainer._stats, model="fewshot", total_epochs=30, templates=["a"])
    stats.progress("train", 30, 30, accuracy=0.5, loss=1.0)
    before = read_json(trainer._stats)
    with FileLock(project.workspace.training_lock):
        assert trainer.stats() == before, "this one runs"
        assert trainer.end_stats("It stopped.") == before
    ended = trainer.stats()
    assert ended["error"] == ABANDONED
    assert ended["total_time"] == before["current_time"]
    assert not {"stage", "done", "total", "current_time"} & set(ended)
    assert (ended["epoch"], ended["best_metric"], ended["templates"]) == (30, 0.5, ["a"])
    assert read_json(trainer._stats) == ended
    assert trainer.end_stats("It stopped.") == ended, "the first reason stays"


def test_the_error_is_gone_after_the_next_training(trainer, project):
    stats = TrainingStats(trainer._stats, model="fewshot", total_epochs=3, templates=[])
    stats.finish(error="It broke.")
    assert "error" not in trainer({"max_epochs": 1}, project.datastore)


def test_only_one_training_at_a_time(trainer, project):
    with FileLock(project.workspace.training_lock):
        assert trainer.running()
        with pytest.raises(HTTPException) as refusal:
            trainer({"max_epochs": 1}, project.datastore)
    assert refusal.value.status_code == 429
    assert not trainer.running()


@pytest.mark.parametrize("epochs", ["no", 0, -3, "1.5", []])
def test_unusable_epochs_are_refused_before_anything_starts(trainer, epochs):
    with pytest.raises(HTTPException, match="max_epochs"):
        trainer.check({"max_epochs": epochs})


@pytest.mark.parametrize("epochs", [None, "", float("nan")])
def test_an_emptied_field_means_the_default(trainer, epochs):
    assert trainer._epochs({"max_epochs": epochs}) == 40


def test_every_adapter_has_its_own_default(project):
    models = PublishedModels("fewshot", project)
    epochs = {
        name: AdapterTrainer(models, project, adapter=name, description="test").config()["max_epochs"]
        for name in ("auto", "classification")
    }
    assert epochs == {name: ADAPTERS[name].Options().epochs for name in epochs}


def test_conf_sets_the_default(open_project):
    project = open_project(max_epochs="7")
    trainer = AdapterTrainer(
        PublishedModels("f", project), project, adapter="contrastive", description="test"
    )
    assert trainer.config()["max_epochs"] == 7
    with pytest.raises(HTTPException, match="No template yet"):
        trainer.check({})


def test_statistics_are_written_at_most_a_few_times_a_second(tmp_path):
    stats = TrainingStats(tmp_path / "s.json", model="m", total_epochs=1000, templates=[])
    time.sleep(0.3)
    for epoch in range(1, 500):
        stats.progress("train", epoch, 1000, accuracy=2.0, loss=0.1)
    written = read_json(tmp_path / "s.json")
    assert written["epoch"] == 1
    assert written["best_metric"] == 1.0
    assert stats.finish()["epoch"] == 499
