"""Fitted models: the newest is used, the last five are kept, those that need no training follow the templates."""

import threading
from dataclasses import replace

import pytest
from fastapi import HTTPException

from lib.models import LATEST, FittedModels, PublishedModels
from tests.unit.conftest import blobs

LABELS = blobs(0)[1]


@pytest.fixture
def project(open_project):
    return open_project()


@pytest.fixture
def fitted(project, submit):
    """Fits a real adapter on what was submitted."""

    def fit(image="a"):
        submit(project, image, LABELS, ["bright", "dark"])
        templates = project.templates(project.submissions())
        labels = project.drawn_labels(templates)
        return project.engine.fit(templates, adapter="classification", labels=labels, options={"epochs": 1})

    return fit


def sentence(call, *arguments, **options):
    with pytest.raises(HTTPException) as refusal:
        call(*arguments, **options)
    return refusal.value.status_code, refusal.value.detail


def test_what_to_do_first(project, submit):
    published, fitted = PublishedModels("fewshot", project), FittedModels("basic", project)
    assert sentence(published.load) == (
        409,
        "No template yet: label a structure in one study, submit it, press Train, then run again.",
    )
    assert sentence(fitted.load) == (
        409,
        "No template yet: label a structure in one study, submit it, then run again.",
    )
    submit(project, "a", LABELS, ["bright", "dark"])
    assert sentence(published.require) == (409, "fewshot is not trained yet: press Train, then run again.")
    fitted.require()


def test_the_last_five_are_kept_newest_first(project, fitted):
    models, model = PublishedModels("fewshot", project), fitted()
    published = [models.publish(model) for _ in range(7)]
    assert models.versions() == published[:1:-1]
    assert len(list(models.folder.iterdir())) == 5
    assert models.file() == models.folder / f"{published[-1]}.safetensors"


def test_numbers_go_on_after_the_tenth_thousand(project, fitted):
    models, model = PublishedModels("fewshot", project), fitted()
    models.folder.mkdir(parents=True)
    model.save(models.folder / "9999-20300101-000000.safetensors")
    newest = models.publish(model)
    assert newest.startswith("10000-")
    assert models.versions()[0] == newest


def test_a_running_server_uses_what_was_published_at_once(project, fitted):
    models, other = PublishedModels("fewshot", project), PublishedModels("fewshot", project)
    first = fitted()
    old = models.publish(first)
    assert other.load().digest == first.digest
    assert other.load() is other.load()
    second = fitted("b")
    models.publish(second)
    assert other.load(LATEST).digest == second.digest != first.digest
    assert other.load(old).digest == first.digest


def test_an_unknown_version_is_told_with_those_there_are(project, fitted):
    models = PublishedModels("fewshot", project)
    version = models.publish(fitted())
    assert sentence(models.load, "v9") == (
        404,
        f"There is no version v9 of fewshot; choose latest or {version}.",
    )


def test_leftovers_of_a_killed_training_are_no_versions(project, fitted):
    models = PublishedModels("fewshot", project)
    models.folder.mkdir(parents=True)
    (models.folder / ".0002-20300101-000000.safetensors.77.tmp").write_bytes(b"half")
    version = models.publish(fitted())
    assert models.versions() == [version]


def test_basic_follows_the_templates(project, submit):
    models = FittedModels("basic", project)
    submit(project, "a", LABELS, ["bright", "dark"])
    first = models.load(device="cpu")
    assert models.load(device="cpu") is first
    submit(project, "b", blobs(1)[1], ["bright", "dark"])
    second = models.load(device="cpu")
    assert second.templates == ["a", "b"]
    submit(project, "b", (blobs(1)[1] == 1), ["bright"])
    assert models.load(device="cpu") is not second


def test_basic_is_fitted_once_for_many_requests(project, submit, monkeypatch):
    submit(project, "a", LABELS, ["bright", "dark"])
    models, fits, fit = FittedModels("basic", project), [], project.engine.fit
    monkeypatch.setattr(project.engine, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    threads = [threading.Thread(target=models.load, kwargs={"device": "cpu"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fits) == 1


def test_an_uploaded_adapter_becomes_the_latest(project, fitted):
    models, model = PublishedModels("fewshot", project), fitted()
    first = models.file(new=True)
    model.save(first)
    assert models.file() == first
    assert models.file(new=True).name > first.name


def test_a_model_is_used_with_the_backbone_it_was_fitted_on(project, fitted):
    engine, model = project.engine, fitted()
    tiny = engine.backbone("cpu")
    assert engine.backbone_of(model, "cpu") is tiny
    workspace = project.workspace
    workspace.backbone("random")
    assert engine.name == "random"
    assert engine.backbone("cpu").digest != tiny.digest
    assert engine.backbone_of(model, "cpu") is tiny, "both stay loaded"
    unknown = replace(model, backbone="/elsewhere/0001.safetensors")
    assert engine.backbone_of(unknown, "cpu") is engine.backbone("cpu")
    engine.backbone("cpu", "handmade")
    assert len(engine._backbones) == 2


def test_basic_follows_the_backbone(project, submit):
    submit(project, "a", LABELS, ["bright", "dark"])
    models = FittedModels("basic", project)
    assert models.load(device="cpu").backbone == "random-tiny"
    project.workspace.backbone("handmade")
    assert models.load(device="cpu").backbone == "handmade"
