"""Every set of studies has a workspace of its own."""

import logging
import os
from pathlib import Path

import pytest

from fewshot.errors import FewshotError
from fewshot.features import AUTO as ENGINES_AUTO
from fewshot.features.choice import Choice
from lib.files import read_json
from lib.workspace import AUTO, DEFAULT_BACKBONE, Workspace, workspace_name


def test_the_same_studies_have_the_same_name(tmp_path: Path, monkeypatch):
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    monkeypatch.chdir(tmp_path)
    names = {workspace_name(str(place)) for place in (tmp_path / "a b", "a b", "./a b/", "link")}
    assert len(names) == 1
    assert names.pop().startswith("a_b-")


@pytest.mark.parametrize(
    "studies", ["http://pacs:8042/dicom-web", "https://pacs:8042/dicom-web", "/data/x", "/other/x", "/data/y"]
)
def test_other_studies_have_other_names(studies):
    others = {
        "http://pacs:8042/dicom-web",
        "https://pacs:8042/dicom-web",
        "/data/x",
        "/other/x",
        "/data/y",
    } - {studies}
    assert workspace_name(studies) not in {workspace_name(other) for other in others}
    assert Path(workspace_name(studies)).name == workspace_name(studies)


def test_the_backbone_is_written_down_once(tmp_path: Path, caplog):
    workspace = Workspace.open(tmp_path, "/data/x")
    assert workspace.backbone(None) == DEFAULT_BACKBONE
    assert workspace.backbone("random-tiny") == "random-tiny"
    assert "until they are trained again" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert Workspace.open(tmp_path, "/data/x").backbone(None) == "random-tiny"
    assert not caplog.text


def test_auto_decides_once_and_the_decision_is_written_down(tmp_path: Path, monkeypatch):
    chosen = iter([Choice("dinov2_vits14_reg", "it is here"), Choice("embedded", "no network")])
    monkeypatch.setattr("fewshot.features.choose_backbone", lambda: next(chosen))
    assert Workspace.open(tmp_path, "/data/x").backbone("auto") == "dinov2_vits14_reg"
    workspace = Workspace.open(tmp_path, "/data/x")
    assert read_json(workspace.folder / "backbone.json") == {"backbone": "dinov2_vits14_reg"}
    assert workspace.backbone("auto") == workspace.backbone(None) == "dinov2_vits14_reg"
    assert Workspace.open(tmp_path, "/data/y").backbone("auto") == "embedded"  # other studies decide anew


def test_auto_keeps_what_was_used_before(tmp_path: Path, monkeypatch):
    """Trained adapters stay usable."""
    monkeypatch.delattr("fewshot.features.choose_backbone")
    workspace = Workspace.open(tmp_path, "/data/x")
    workspace.backbone("random-tiny")
    assert workspace.backbone("auto") == "random-tiny"


@pytest.fixture
def trained(tmp_path: Path) -> Workspace:
    """A workspace begun with random-tiny, where a training has published a backbone."""
    workspace = Workspace.open(tmp_path, "/data/x")
    workspace.backbone("random-tiny")
    workspace.backbones.mkdir()
    (workspace.backbones / "0001.safetensors").touch()
    workspace.publish_backbone(workspace.backbones / "0001.safetensors")
    return workspace


@pytest.mark.parametrize("asked", ["random-tiny", None, "auto"])
def test_a_trained_backbone_outlives_a_start_with_the_same_words(trained: Workspace, asked, caplog):
    file = str(trained.backbones / "0001.safetensors")
    assert trained.backbone(asked) == trained.backbone_now() == file
    assert trained.backbone_before() == "random-tiny"
    trained.publish_backbone(trained.backbones / "0002.safetensors")
    assert trained.backbone_before() == file
    assert trained.backbone(asked) == str(trained.backbones / "0002.safetensors")
    assert not caplog.text


def test_other_words_take_another_backbone(trained: Workspace):
    assert trained.backbone("embedded") == trained.backbone_now() == "embedded"
    assert trained.backbone_before() is None
    assert trained.backbone("random-tiny") == "random-tiny"


def test_a_workspace_can_be_moved_with_its_backbones(trained: Workspace, tmp_path: Path):
    old = trained.backbone_now()
    moved = Workspace(trained.folder.rename(tmp_path / "moved"))
    assert moved.backbone_now() == moved.find_backbone(old) == str(moved.backbones / "0001.safetensors")
    assert moved.find_backbone("embedded") == "embedded"
    assert moved.find_backbone("/elsewhere/x.pth") == "/elsewhere/x.pth"


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(FewshotError, match="cannot be made"):
        Workspace.open(tmp_path, "/data/x", str(tmp_path / "file" / "w"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_told(tmp_path: Path):
    (tmp_path / "w").mkdir(mode=0o500)
    with pytest.raises(FewshotError, match="read-only"):
        Workspace.open(tmp_path, "/data/x", str(tmp_path / "w"))


def test_auto_is_the_engines_word():
    assert AUTO == ENGINES_AUTO
