"""Training publishes an adapter and says how far it is; a failed one changes nothing."""

import json
import time

import pytest
from fastapi import HTTPException
from filelock import FileLock

from fewshot.errors import FewshotError
from lib.files import read_json
from lib.models import PublishedModels
from lib.trainers import AdapterTrainer
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
    assert trainer.models.versions() == [result["version"]]
    assert trainer.models.load().labels == {"bright": 1, "dark": 2}
    assert result == trainer.stats()
    assert (result["epoch"], result["total_epochs"]) == (2, 2)
    assert 0 < result["best_metric"] <= 1
    assert result["total_time"].startswith("0:00:")
    assert not {"current_time", "stage"} & set(result)


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
