"""The landmark model's file: what is written is read, and what it should not be is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.landmarks import (
    LandmarkModel,
    LandmarkTemplate,
    Mark,
    find_landmarks,
    fit_landmarks,
    load_landmark_model,
)
from fewshot.model import HEADER_KEY, load_model
from tests.unit.landmarks.conftest import FAST
from tests.unit.landmarks.textured import picture


@pytest.fixture(scope="module")
def small_bank(tmp_path_factory: pytest.TempPathFactory) -> FeatureBank:
    return FeatureBank(tmp_path_factory.mktemp("bank"))


def fit(backbone: Backbone, bank: FeatureBank, method: str = "auto") -> LandmarkModel:
    """On two pictures; the second lacks a landmark."""
    image, places = picture()
    other, turned = picture(30, seed=1, name="second")
    marks = {name: Mark(place) for name, place in places.items()}
    few = {name: Mark(turned[name]) for name in ("left", "root")}
    templates = [LandmarkTemplate(image, marks), LandmarkTemplate(other, few, frozenset({"right"}))]
    options = FAST if method == "auto" else None
    return fit_landmarks(templates, backbone=backbone, bank=bank, method=method, options=options)


@pytest.fixture(scope="module")
def model(tiny, small_bank) -> LandmarkModel:
    return fit(tiny, small_bank)


@pytest.fixture
def saved(model, tmp_path) -> Path:
    path = tmp_path / "new" / "points.safetensors"
    model.save(path)
    return path


def header_of(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[HEADER_KEY])


def rewrite(path: Path, *, tensors=None, without=(), **changes) -> None:
    header = {name: value for name, value in (header_of(path) | changes).items() if name not in without}
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = {name: value for name, value in (state | (tensors or {})).items() if name not in without}
    safetensors.torch.save_file(state, path, {HEADER_KEY: json.dumps(header)})


@pytest.mark.parametrize("method", ["auto", "knn"])
def test_a_saved_model_is_the_same_and_finds_the_same(method, model, tiny, small_bank, tmp_path):
    of = model if method == "auto" else fit(tiny, small_bank, method)
    of.save(tmp_path / "points.safetensors")
    again = load_landmark_model(str(tmp_path / "points.safetensors"))
    assert again.digest == of.digest
    assert again.content == of.content
    assert (again.names, again.templates) == (["tip", "root", "left", "right"], ["picture", "second"])
    assert (again.method, again.radius, again.created) == (method, of.radius, of.created)
    assert again.scores == of.scores
    query, _ = picture(140, (2, 1), seed=6)
    one, two = (find_landmarks(query, which, backbone=tiny, bank=small_bank) for which in (of, again))
    assert one.landmarks == two.landmarks
    assert one.points


def test_what_is_remembered_of_templates_travels_in_the_file(model, saved):
    again = load_landmark_model(saved)
    assert len(again.remembered) == 2
    for one, other in zip(model.remembered, again.remembered, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.textures.cubes, other.textures.cubes)
        assert one.textures.step == other.textures.step
    assert np.isnan(again.remembered[1].points).all(1).tolist() == [True, False, False, True]


def test_the_digest_tells_models_apart(model):
    assert replace(model).digest == model.digest
    assert replace(model, radius=model.radius + 1).digest != model.digest
    assert replace(model, remembered=()).digest != model.digest


def test_segmentation_adapters_and_landmark_models_are_told_apart(model, saved):
    segmentation = saved.with_name("adapter.safetensors")
    model.regions.save(segmentation)
    with pytest.raises(
        FewshotError, match=r"adapter\.safetensors holds a segmentation adapter, not a landmark"
    ):
        load_landmark_model(segmentation)
    with pytest.raises(FewshotError, match=r"points\.safetensors holds a landmark model, not a segmentation"):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"version": 99}, "format version 99"), ({"format": "something"}, "is not a fewshot")],
)
def test_newer_versions_and_other_formats_are_refused_with_the_files_name(saved, changes, said):
    rewrite(saved, **changes)
    with pytest.raises(FewshotError, match=said) as refused:
        load_landmark_model(saved)
    assert str(saved) in str(refused.value)


def test_missing_and_damaged_files_are_refused_with_their_names(saved, tmp_path):
    content = saved.read_bytes()
    wrong = [tmp_path / "none.safetensors"]
    for number, damaged in enumerate((b"", content[:200], content[:-100], b"\x80\x04" + content)):
        wrong.append(tmp_path / f"damaged_{number}.safetensors")
        wrong[-1].write_bytes(damaged)
    for path in wrong:
        with pytest.raises(FewshotError, match="no model file|damaged") as refused:
            load_landmark_model(path)
        assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"without": ["regions"]},
        {"without": ["steps"]},
        {"without": ["points.1"]},
        {"without": ["textures.0"]},
        {"without": ["regions.atlas.0.classes"]},
        {"steps": [1.0]},
        {"steps": []},
        {"steps": [1.0, 1.0, 1.0]},
        {"steps": [1.0, 0.0]},
        {"steps": [1.0, None]},
        {"radius": "wide"},
        {"tensors": {"points.0": torch.zeros(4, 2, dtype=torch.float64)}},
        {"tensors": {"points.1": torch.zeros(4, 3, dtype=torch.float64)}},
        {"tensors": {"points.0": torch.zeros(3)}},
        {"tensors": {"textures.0": torch.zeros(2, 1, 23, 23, 1, dtype=torch.uint8)}},
        {"tensors": {"textures.0": torch.zeros(5, dtype=torch.uint8)}},
    ],
    ids=lambda of: " ".join(
        f"{name} {[*value] if isinstance(value, dict) else value}" for name, value in of.items()
    ),
)
def test_a_file_that_does_not_hold_what_its_header_says_is_refused(saved, changes):
    rewrite(saved, **changes)
    with pytest.raises(FewshotError, match=r"points\.safetensors does not hold what its header says"):
        load_landmark_model(saved)


def test_an_adapter_of_other_landmarks_is_refused(saved):
    regions = header_of(saved)["regions"]
    for labels in ({"tip": 1}, {str(n): n for n in range(1, 9)}):
        rewrite(saved, regions={**regions, "labels": labels})
        with pytest.raises(FewshotError, match="does not hold what its header says"):
            load_landmark_model(saved)


def test_another_backbone_is_refused(model, tiny, small_bank, monkeypatch):
    query, _ = picture()
    find_landmarks(query, model, backbone=tiny, bank=small_bank)
    foreign = replace(model, regions=replace(model.regions, backbone_digest="0" * 16))
    with pytest.raises(FewshotError, match="fitted on features of backbone random-tiny"):
        find_landmarks(query, foreign, backbone=tiny, bank=small_bank)
    other_layers = replace(model, regions=replace(model.regions, layers=[99]))
    with pytest.raises(FewshotError, match=r"layers \[99\]"):
        find_landmarks(query, other_layers, backbone=tiny, bank=small_bank)


def test_saving_leaves_no_other_file_and_replaces_the_old_one(model, saved):
    saved.write_bytes(b"old")
    model.save(saved)
    assert saved.read_bytes() == model.content
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
