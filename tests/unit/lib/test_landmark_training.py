"""Training of landmarks: from dots and files, published like adapters, and renewed with a new backbone."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.landmarks.labelled import NO_LANDMARK, NO_LANDMARK_MARKED
from lib.models import PublishedLandmarks, PublishedModels, backbone_of
from lib.trainers import AdapterTrainer, LandmarkTrainer
from lib.trainers.publishing import publish
from lib.trainers.stats import BackboneStats
from tests.unit.conftest import blobs
from tests.unit.lib.landmarks import BOTH, CENTRES, LABELS, millimetres, write_points

NAMES = list(CENTRES)
QUICK = {"method": "basic", "device": ["cpu"]}


@pytest.fixture
def project(open_project, submit):
    project = open_project(landmarks=",".join(NAMES))
    submit(project, "a", np.where(BOTH, BOTH + 2, LABELS), ["bright", "dark", *NAMES])
    return project


@pytest.fixture
def trainer(project):
    return LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test")


def test_a_training(trainer, project, submit, studies):
    submit(project, "b", blobs(1)[1], ["bright", "dark"])
    result = trainer(QUICK, project.datastore)
    assert trainer.models.versions() == [result["version"]]
    model = trainer.models.load()
    assert model.names == result["labels"] == NAMES
    assert model.method == "basic"
    assert round(model.radius, 3) == result["radius"]
    assert result["templates"] == model.templates == ["a"]
    assert result["left_out"] == {"b": NO_LANDMARK_MARKED}
    assert result == trainer.stats()
    assert result["epoch"] <= result["total_epochs"]


def test_points_in_files_are_learned_and_bad_ones_told(trainer, project, studies):
    write_points(studies, "b.json", {"vertex": millimetres((20, 20, 5)), NAMES[0]: millimetres((12, 14, 4))})
    write_points(studies, "c.json", {"vertex": [0, 0, 0]})
    result = trainer(QUICK, project.datastore)
    assert result["templates"] == ["a", "b"]
    assert result["labels"] == [*NAMES, "vertex"]
    assert list(result["left_out"]) == ["landmarks/c.json"]
    assert project.labels.read()["vertex"] == 5, "viewers can show it"


def test_radius_and_epochs(trainer, project):
    result = trainer({"method": "classification", "max_epochs": 2, "radius": "7.5"}, project.datastore)
    assert result["radius"] == 7.5
    assert (result["epoch"], result["total_epochs"]) == (2, 2)
    assert trainer.models.load().regions.adapter.options.epochs == 2


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"method": "unet"}, "method is 'unet': choose from auto, contrastive, classification, basic."),
        ({"max_epochs": -1}, "max_epochs is -1"),
        ({"radius": "wide"}, "radius is 'wide': give millimetres"),
        ({"radius": -2}, "radius is -2: give millimetres"),
    ],
)
def test_unusable_options_are_refused_at_once(trainer, request_, sentence):
    with pytest.raises(HTTPException, match=sentence) as refusal:
        trainer.check(request_)
    assert refusal.value.status_code == 422


@pytest.mark.parametrize("empty", [None, "", 0, 0.0, float("nan"), []])
def test_an_emptied_field_means_the_default(trainer, empty):
    trainer.check({"radius": empty, "max_epochs": None, "method": ""})


def test_conf_sets_the_epochs(open_project):
    for epochs in (0, 7):
        project = open_project(**({"max_epochs": str(epochs)} if epochs else {}))
        trainer = LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test")
        assert trainer.config()["max_epochs"] == epochs
        assert trainer.config()["method"][0] == "auto"


def test_without_a_landmark_nothing_begins(open_project, submit):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    trainer = LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test")
    assert not trainer.has_templates()
    with pytest.raises(HTTPException) as refusal:
        trainer.check({})
    assert (refusal.value.status_code, refusal.value.detail) == (409, NO_LANDMARK)


def test_train_all_takes_what_has_templates(open_project, submit):
    app, project = object.__new__(app_class()), open_project(landmarks=",".join(NAMES))
    app.project, app.settings = project, project.settings
    app._trainers = {
        "fewshot": AdapterTrainer(
            PublishedModels("fewshot", project), project, adapter="auto", description="test"
        ),
        "landmarks": LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test"),
    }
    assert app.trained_together() == ["fewshot", "landmarks"], "whoever asks is told what to do first"
    submit(project, "a", LABELS, ["bright", "dark"])
    assert app.trained_together() == ["fewshot"]
    submit(project, "b", BOTH, NAMES)
    assert app.trained_together() == ["fewshot", "landmarks"]
    submit(project, "a", BOTH, NAMES)
    assert app.trained_together() == ["landmarks"]


def app_class():
    """The class of the app that MONAI Label loads."""
    path = list(sys.path)
    main = Path(__file__).resolve().parents[3] / "apps" / "fewshot" / "main.py"
    spec = importlib.util.spec_from_file_location("fewshot_app_main", main)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module.FewshotApp


def test_where_all_that_there_is_is_bad_the_reasons_are_told(open_project, studies):
    project = open_project()
    write_points(studies, "c.json", {"vertex": [0, 0, 0]})
    trainer = LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test")
    with pytest.raises(HTTPException, match="No landmark yet: .* There is no image c"):
        trainer(QUICK, project.datastore)
    assert "There is no image c" in trainer.stats()["error"]


def test_the_adapters_know_of_none(open_project, submit):
    project = open_project(landmarks=",".join(NAMES))
    submit(project, "a", BOTH, NAMES)
    trainer = AdapterTrainer(
        PublishedModels("fewshot", project), project, adapter="classification", description="test"
    )
    assert not trainer.has_templates()
    with pytest.raises(HTTPException, match="No organ labelled yet, only landmarks"):
        trainer.check({})
    submit(project, "b", LABELS, ["bright", "dark"])
    assert trainer.has_templates()
    result = trainer({"max_epochs": 1, "device": "cpu"}, project.datastore)
    assert result["labels"] == ["bright", "dark"]
    assert result["templates"] == ["b"]
    assert list(result["left_out"]) == ["a"]


def test_a_new_backbone_takes_the_landmarks_with_it(trainer, project, tmp_path, monkeypatch):
    trainer({**QUICK, "radius": 9}, project.datastore)
    before = trainer.models.load()
    assert backbone_of(trainer.models.file()) == "random-tiny"
    monkeypatch.setattr("lib.workspace.Workspace.publish_backbone", lambda *_: None)
    stats = BackboneStats(tmp_path / "stats.json", model="backbone")
    templates = project.templates(project.submissions())
    versions = publish(project, "handmade", templates, stats, device="cpu")
    assert list(versions) == ["landmarks"]
    after = trainer.models.load()
    assert after.regions.backbone == backbone_of(trainer.models.file()) == "handmade"
    assert (after.method, after.radius, after.names) == (before.method, before.radius, before.names)


def test_landmarks_that_nobody_marks_any_more_keep_their_backbone(
    trainer, project, submit, tmp_path, monkeypatch
):
    version = trainer(QUICK, project.datastore)["version"]
    submit(project, "a", LABELS, ["bright", "dark"])
    monkeypatch.setattr("lib.workspace.Workspace.publish_backbone", lambda *_: None)
    stats = BackboneStats(tmp_path / "stats.json", model="backbone")
    publish(project, "handmade", project.templates(project.submissions()), stats, device="cpu")
    assert trainer.models.versions() == [version]


def test_an_adapters_file_is_told_from_a_landmark_models(trainer, project):
    trainer(QUICK, project.datastore)
    adapters = PublishedModels("fewshot", project)
    adapters.publish(trainer.models.load().regions)
    assert backbone_of(adapters.file()) == "random-tiny"
    named = PublishedLandmarks("points", project)
    named.publish(trainer.models.load())
    assert backbone_of(named.file()) == "random-tiny", "whatever the model is called"
    mixed = PublishedLandmarks("fewshot", project)
    with pytest.raises(FewshotError, match="holds a segmentation adapter, not a landmark model"):
        mixed.load()


def test_more_than_fit_into_label_maps_are_trained_all_the_same(open_project, studies):
    project = open_project()
    many = {f"l{n}": millimetres((n % 38 + 1, (n // 38) * 4 + 1, 3)) for n in range(270)}
    write_points(studies, "a.json", many)
    trainer = LandmarkTrainer(PublishedLandmarks("landmarks", project), project, description="test")
    result = trainer(QUICK, project.datastore)
    assert len(result["labels"]) == 270
    assert len(project.labels.read()) == 255
