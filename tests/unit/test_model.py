"""The model file is refused when it is not what it should be, and never half written."""

import json
import os
import pickle

import pytest
import safetensors.torch
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


def rewrite(path, **changes):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER_KEY]) | changes
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(state, path, {HEADER_KEY: json.dumps(header)})


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
        ({"config": {"dim": 5, "labels": 2, "options": {}}}, "do not make a contrastive adapter"),
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
