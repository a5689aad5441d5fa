"""The model file is refused when it is not what it should be, and never half written."""

import json
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fewshot import pipeline
from fewshot.errors import FewshotError
from fewshot.model import HEADER_KEY, load_model
from fewshot.support import Template
from tests.unit.conftest import blobs


@pytest.fixture
def saved(tiny, bank, tmp_path):
    model = pipeline.fit(
        [Template(*blobs(0), {"bright": 1, "dark": 2})], options={"epochs": 1}, backbone=tiny, bank=bank
    )
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewrite(path, *, tensors=None, without=(), **changes):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER_KEY]) | changes
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = {name: value for name, value in header.items() if name not in without}
    safetensors.torch.save_file(state | (tensors or {}), path, {HEADER_KEY: json.dumps(header)})


def test_header_tells_everything(saved):
    model = load_model(saved)
    assert model.labels == {"bright": 1, "dark": 2}
    assert model.templates == ["blobs_0"]
    assert model.backbone == "random-tiny"
    assert model.spec.plane == "axial"
    assert model.spec.pixel_mm > 0
    assert model.parts == [1, 1]
    assert model.scores["epochs"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "format version 99"),
        ({"format": "something"}, "not a fewshot adapter file"),
        ({"adapter": "magic"}, "adapter 'magic'"),
        ({"config": {"dim": 5, "labels": 2, "options": {}}}, "do not make a auto adapter"),
    ],
)
def test_other_versions_and_formats_are_refused(saved, changes, words):
    rewrite(saved, **changes)
    with pytest.raises(FewshotError, match=words):
        load_model(saved)


def test_another_backbone_is_refused(saved, tiny):
    rewrite(saved, backbone={"name": "random-tiny", "digest": "0" * 16, "layers": [1]})
    with pytest.raises(FewshotError, match="load that backbone or fit the adapter again"):
        load_model(saved).require(tiny)


def test_missing_damaged_and_foreign_files_are_told_apart(saved, tmp_path):
    with pytest.raises(FewshotError, match="no model file"):
        load_model(tmp_path / "none.safetensors")
    saved.write_bytes(saved.read_bytes()[:200])
    with pytest.raises(FewshotError, match="damaged"):
        load_model(saved)
    safetensors.torch.save_file({}, tmp_path / "foreign.safetensors")
    with pytest.raises(FewshotError, match="not a fewshot adapter"):
        load_model(tmp_path / "foreign.safetensors")


def test_no_pickle_is_ever_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FewshotError):
        load_model(tmp_path / "model.safetensors")
    assert not (tmp_path / "exploded").exists()


def test_a_crash_while_saving_keeps_the_old_file(saved, monkeypatch):
    before, model = saved.read_bytes(), load_model(saved)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        model.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.glob(".*tmp")] == []


def header_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[HEADER_KEY])


def test_the_atlas_travels_in_the_file(saved, tiny, bank):
    model = load_model(saved)
    assert header_of(saved)["version"] == 2
    (template,) = model.atlas.templates
    np.testing.assert_array_equal(template.classes, blobs(0)[1])
    assert template.drawn.tolist() == [True, True]
    model.save(saved.with_name("again.safetensors"))
    assert saved.with_name("again.safetensors").read_bytes() == saved.read_bytes()
    assert not [name for name in model.adapter.state_dict() if name.startswith("atlas")]


@pytest.mark.parametrize(
    "tensors",
    [
        {"atlas.0.classes": torch.zeros(30, dtype=torch.uint8)},
        {"atlas.0.whole.image": torch.zeros(4, 4)},
        {"atlas.0.focus.affine": torch.zeros(4, 4)},
        {"atlas.0.labelled": torch.ones(3, dtype=torch.bool)},
        {"atlas.0.drawn": torch.ones(1, dtype=torch.bool)},
        {"atlas.0.focus.image": torch.zeros(3, 3, 3, dtype=torch.bfloat16)},
    ],
    ids=lambda of: next(iter(of)),
)
def test_a_damaged_atlas_is_refused_with_the_files_name(saved, tensors):
    rewrite(saved, tensors=tensors)
    with pytest.raises(FewshotError, match=r"model\.safetensors does not hold what its header says"):
        load_model(saved)


def test_an_atlas_that_its_header_describes_otherwise_is_refused(saved):
    atlas = header_of(saved)["atlas"]
    second = {**atlas, "templates": atlas["templates"] * 2}
    for wrong in (second, {**atlas, "templates": []}, {**atlas, "window": "magic"}, {"window": "percentile"}):
        rewrite(saved, atlas=wrong)
        with pytest.raises(FewshotError, match="does not hold what its header says"):
            load_model(saved)


def test_files_of_the_first_version_are_read(tiny, bank, tmp_path):
    """They have no atlas, and their adapter was the contrastive one."""
    template = Template(*blobs(0), {"bright": 1, "dark": 2})
    model = pipeline.fit([template], adapter="contrastive", options={"epochs": 1}, backbone=tiny, bank=bank)
    path = tmp_path / "old.safetensors"
    model.save(path)
    assert model.atlas is None
    rewrite(path, version=1, without=["atlas"])
    assert "atlas" not in header_of(path)
    old = load_model(path)
    assert old.atlas is None
    query, _ = blobs(1)
    one, two = (pipeline.predict(query, of, backbone=tiny, bank=bank) for of in (model, old))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert not any("registered" in note for note in two.notes)
