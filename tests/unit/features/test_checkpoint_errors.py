"""Files that are no backbone: one sentence each, with what is wrong and what to do."""

import argparse
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewshot.errors import FewshotError
from fewshot.features import load_backbone
from fewshot.features.weights import HEADER_KEY, read_checkpoint
from tests.unit.features.published import publish

WHAT_TO_DO = r"; (download|give|check|run|make) |: download"


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return publish("dinov2", tmp_path_factory.mktemp("v2") / "model")


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory):
    return publish("dinov3_vit", tmp_path_factory.mktemp("v3") / "model")


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def cut_short(path: Path, state, share: float) -> None:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def resnet(path: Path, _) -> None:
    import torchvision

    torch.save(torchvision.models.resnet18().state_dict(), path)


def vision_transformer(path: Path, state) -> None:
    """A ViT without layer scale, as DINO (v1) and MAE have it."""
    torch.save({name: value for name, value in state.items() if ".ls" not in name}, path)


def clip(path: Path, _) -> None:
    torch.save({"visual.class_embedding": torch.ones(8), "visual.conv1.weight": torch.ones(8, 3, 4, 4)}, path)


def of_another_width(path: Path, state) -> None:
    torch.save(state | {"blocks.1.mlp.fc1.weight": torch.ones(512, 64)}, path)


def without(*names: str):
    return lambda path, state: torch.save({k: v for k, v in state.items() if k not in names}, path)


def text(content: bytes):
    return lambda path, _: path.write_bytes(content)


WRONG = {
    "no file": ("w.pth", lambda path, _: None, "no backbone file or folder"),
    "an empty file": ("w.pth", text(b""), "is empty"),
    "a web page": ("w.pth", text(b"\n<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
    "a web page, called safetensors": ("w.safetensors", text(b"<html>404</html>"), "is a web page"),
    "a git-lfs pointer": (
        "w.safetensors",
        text(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"),
        "git-lfs pointer.*git lfs pull",
    ),
    "a text": ("w.pth", text("Grüße aus dem Süden. ".encode() * 90), "is a text file"),
    "noise": ("w.pth", text(bytes(range(256)) * 9), "cannot be read as a checkpoint"),
    "noise, called safetensors": (
        "w.safetensors",
        text(bytes(range(256)) * 9),
        "cannot be read as a checkpoint",
    ),
    "half a safetensors": ("w.safetensors", lambda p, s: cut_short(p, s, 0.5), "cut short"),
    "the start of a safetensors": ("w.safetensors", lambda p, s: cut_short(p, s, 0.001), "cut short"),
    "half a pth": ("w.pth", lambda p, s: cut_short(p, s, 0.5), "may be cut short"),
    "most of a pth": ("w.pth", lambda p, s: cut_short(p, s, 0.99), "may be cut short"),
    "an old pth, half": (
        "w.pth",
        lambda p, s: (
            torch.save(s, p, _use_new_zipfile_serialization=False),
            p.write_bytes(p.read_bytes()[:9000]),
        ),
        "may be cut short",
    ),
    "no tensors": ("w.pth", lambda p, _: torch.save({"a": 1}, p), "not hold a dictionary of tensors"),
    "one tensor": ("w.pth", lambda p, _: torch.save(torch.ones(3), p), "not hold a dictionary of tensors"),
    "a whole module": ("w.pth", lambda p, _: torch.save(torch.nn.Linear(2, 2), p), "Python objects.*Linear"),
    "settings beside tensors": (
        "w.pth",
        lambda p, s: torch.save({"model": s, "args": argparse.Namespace(lr=1)}, p),
        r"Python objects \(argparse.Namespace\)",
    ),
    "a ResNet": ("w.pth", resnet, "holds a ResNet"),
    "CLIP": ("w.pth", clip, "holds a CLIP model"),
    "another ViT": ("w.pth", vision_transformer, r"DINO \(v1\), MAE or CLIP.*it lacks blocks.0.ls1.gamma"),
    "some other tensors": (
        "w.pth",
        lambda p, _: torch.save({"a": torch.ones(2)}, p),
        "lacks cls_token.*holds a",
    ),
    "no positions": ("w.pth", without("pos_embed"), "lacks pos_embed"),
    "no patches": ("w.pth", without("patch_embed.proj.weight"), "lacks patch_embed.proj.weight"),
    "a parameter less": ("w.pth", without("blocks.1.norm1.weight"), "does not fit.*blocks.1.norm1.weight"),
    "a block less": (
        "w.pth",
        lambda p, s: torch.save({k: v for k, v in s.items() if not k.startswith("blocks.1.")}, p),
        "does not fit",
    ),
    "a parameter more": (
        "w.pth",
        lambda p, s: torch.save(s | {"adapter.w": torch.ones(1)}, p),
        "does not fit.*adapter.w",
    ),
    "other shapes": ("w.pth", of_another_width, "does not fit.*size mismatch"),
    "positions in a rectangle": (
        "w.pth",
        lambda p, s: torch.save(s | {"pos_embed": torch.ones(1, 13, 128)}, p),
        "12 positions.*no square grid",
    ),
    "a class token without channels": (
        "w.pth",
        lambda p, s: torch.save(s | {"cls_token": torch.tensor(1.0)}, p),
        "shapes do not fit together",
    ),
    "images of four channels": (
        "w.pth",
        lambda p, s: torch.save(s | {"patch_embed.proj.weight": torch.ones(128, 4, 14, 14)}, p),
        "one or three channels",
    ),
    "our header, another version's": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {HEADER_KEY: json.dumps({"depth": 2, "wheels": 4})}),
        "cannot be built.*wheels",
    ),
    "our header, damaged": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {HEADER_KEY: "{"}),
        "does not tell an architecture",
    ),
}


def refuse(path: Path, words: str) -> None:
    with pytest.raises(FewshotError, match=words) as caught:
        load_backbone(str(path), device="cpu")
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 500
    assert re.search(WHAT_TO_DO, sentence)


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_backbone_is_refused(tmp_path, dinov2, case):
    name, make, words = WRONG[case]
    make(tmp_path / name, dinov2.meta())
    refuse(tmp_path / name, words)


def test_code_in_a_pickle_is_not_run(tmp_path):
    mark = tmp_path / "code ran"
    content = {"cls_token": torch.ones(1), "x": Malicious(mark)}
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        refuse(tmp_path / name, r"Python objects \(\w+.mkdir\).*no code from a file is ever run")
    (tmp_path / "plain.safetensors").write_bytes(pickle.dumps(content))
    refuse(tmp_path / "plain.safetensors", "not as torch.save writes it")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists()  # it would have been seen


def test_a_file_under_the_other_name_is_read(tmp_path, dinov2):
    """The content decides: people rename files."""
    save_file(dinov2.meta(), tmp_path / "really_safetensors.pth")
    torch.save(dinov2.meta(), tmp_path / "really_pickled.safetensors")
    first, second = (read_checkpoint(path)[0] for path in sorted(tmp_path.iterdir()))
    assert set(first) == set(second)


FOLDERS = {
    "no config": (lambda folder, _: (folder / "config.json").unlink(), "not a Hugging Face model folder"),
    "no weights": (
        lambda folder, _: (folder / "model.safetensors").unlink(),
        "not a Hugging Face model folder",
    ),
    "another model": (lambda folder, config: config.update(model_type="bert"), "type 'bert'"),
    "a convolutional DINOv3": (
        lambda folder, config: config.update(model_type="dinov3_convnext"),
        "type 'dinov3_convnext'",
    ),
    "another activation": (lambda folder, config: config.update(hidden_act="relu"), "hidden_act relu"),
    "no heads": (
        lambda folder, config: config.pop("num_attention_heads"),
        "lacks a number.*num_attention_heads",
    ),
    "heads that do not divide": (
        lambda folder, config: config.update(num_attention_heads=5),
        "cannot be built.*num_heads",
    ),
    "a list": (
        lambda folder, config: (folder / "config.json").write_text("[1]"),
        "does not hold a JSON object",
    ),
    "half a config": (
        lambda folder, config: (folder / "config.json").write_text('{"mo'),
        "cannot be read as JSON",
    ),
    "half the weights": (
        lambda folder, config: os.truncate(folder / "model.safetensors", 9000),
        "cut short",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_no_backbone_is_refused(tmp_path, dinov2, case):
    change, words = FOLDERS[case]
    folder = shutil.copytree(dinov2.folder, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    before = dict(config)
    change(folder, config)
    if config != before:
        (folder / "config.json").write_text(json.dumps(config))
    refuse(folder, words)


def test_a_folder_that_lacks_a_part_of_its_weights_is_refused(tmp_path, dinov2):
    folder = dinov2.write("sharded folder", tmp_path)
    missing = sorted(folder.glob("*.safetensors"))[1]
    missing.unlink()
    refuse(folder, f"lacks {missing.name}")


def test_dinov3_models_of_another_make_are_refused(tmp_path, dinov3):
    gated = tmp_path / "gated.pth"
    torch.save(dinov3.meta() | {"blocks.0.mlp.w1.weight": torch.ones(8, 8)}, gated)
    refuse(gated, "gated feed-forward layers.*give DINOv3 S/16")
    biased = tmp_path / "biased.pth"
    torch.save({k: v for k, v in dinov3.meta().items() if not k.endswith("bias_mask")}, biased)
    refuse(biased, "bias of the keys")


def test_a_file_without_rights_is_told(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")

    def refuse_opening(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse_opening)
    refuse(path, "Permission denied.*check the path and its rights")
