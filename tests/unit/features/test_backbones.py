"""Backbones by name, our own format, layers, precision and devices."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fewshot.errors import FewshotError
from fewshot.features import BACKBONES, check_name, embedded, load_backbone
from fewshot.features.registry import build_model
from fewshot.features.weights import HEADER_KEY, read_checkpoint

ARCHITECTURE = {
    "patch_size": 14,
    "in_chans": 1,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "img_size": 56,
    "reg_tokens": 2,
    "no_embed_class": True,
}


@pytest.fixture
def ours(tmp_path):
    """A file as fewshot writes it: one channel and three heads, which no other format could tell."""
    model = build_model(None, ARCHITECTURE, tmp_path)
    model.load_state_dict(embedded.random_state(model))
    path = tmp_path / "ours.safetensors"
    save_file(dict(model.state_dict()), path, metadata={HEADER_KEY: json.dumps(ARCHITECTURE)})
    return str(path)


def test_our_format_carries_its_architecture(ours):
    backbone = load_backbone(ours, device="cpu")
    assert (backbone.name, backbone.patch, backbone.dim, backbone.size) == (ours, 14, 48, 448)
    assert backbone.features(torch.rand(1, 28, 42)).shape == (1, 2, 3, 48)


def test_layers_are_concatenated(ours):
    one, both = (load_backbone(ours, device="cpu", layers=layers) for layers in (None, [-1, 0]))
    assert both.dim == 2 * one.dim
    images = torch.rand(1, 56, 70)
    torch.testing.assert_close(both.features(images)[..., one.dim :], one.features(images))
    with pytest.raises(FewshotError, match="layers 0 to 1"):
        load_backbone(ours, device="cpu", layers=[2])


def test_embedded_backbone_ships_and_tells_where_it_comes_from():
    backbone = load_backbone("embedded", device="cpu")
    assert (backbone.patch, backbone.dim, len(backbone.digest)) == (4, 308, 16)
    assert embedded.WEIGHTS.stat().st_size < 12e6
    first, second = backbone.features(torch.rand(2, 64, 64))
    assert (first - second).abs().max() > 0.1


def test_bfloat16_stays_close_to_float32():
    images = torch.rand(1, 112, 112)
    exact = load_backbone("embedded", device="cpu", dtype=torch.float32).features(images)
    fast = load_backbone("embedded", device="cpu", dtype=torch.bfloat16).features(images)
    similarity = torch.nn.functional.cosine_similarity(exact.flatten(0, 2), fast.flatten(0, 2))
    assert similarity.min() > 0.99


def test_a_gpu_that_is_not_there_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FewshotError, match="sees no GPU"):
        load_backbone("random-tiny", device="cuda")
    with pytest.raises(FewshotError, match="no device 'abacus'"):
        load_backbone("random-tiny", device="abacus")
    with pytest.raises(FewshotError, match="no device 'meta'"):
        load_backbone("random-tiny", device="meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(FewshotError, match="there are 1 GPUs"):
        load_backbone("random-tiny", device="cuda:9")


def test_a_backbone_with_another_stem_is_refused(tmp_path):
    """The embedded architecture without the header that tells it."""
    path = tmp_path / "stem.safetensors"
    save_file(read_checkpoint(embedded.WEIGHTS)[0], path)
    with pytest.raises(FewshotError, match=r"stem\.safetensors"):
        load_backbone(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dinov2_vits", "There is no backbone 'dinov2_vits': .*dinov2_vits14.* would come close"),
        ("DINOv2_ViTB14", "dinov2_vitb14.* would come close"),
        (
            "nothing",
            "There is no backbone 'nothing': give a checkpoint file or folder, or one of embedded, dino",
        ),
        ("weights/vits.pth", "no backbone file or folder weights/vits.pth; check the path"),
        ("vits.safetensors", "no backbone file or folder vits.safetensors"),
    ],
)
def test_unknown_names_are_told_with_what_may_have_been_meant(name, words):
    with pytest.raises(FewshotError, match=words):
        load_backbone(name)


def test_names_and_paths_are_checked(tmp_path, monkeypatch):
    assert {check_name(name) for name in BACKBONES} == set(BACKBONES)
    assert check_name("auto") == "auto"
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert check_name("w.pth") == str(tmp_path / "w.pth")
