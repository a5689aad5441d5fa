"""Backbones from files in every format that people have, and clear words about files that are none."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fewshot.errors import FewshotError
from fewshot.features import BACKBONES, embedded, load_backbone, torchvision_ops
from fewshot.features.registry import build_model
from fewshot.features.weights import HEADER_KEY, infer_architecture, read_checkpoint

ARCHITECTURE = {
    "patch_size": 14,
    "in_chans": 3,
    "embed_dim": 128,
    "depth": 2,
    "num_heads": 2,
    "img_size": 70,
    "init_values": 1e-5,
    "mlp_ratio": 4.0,
}


def dinov2(tmp_path, *, registers=0):
    """A cut-down DINOv2 with random weights, as timm builds it, and its parameters in Meta's naming."""
    architecture = {**ARCHITECTURE, "reg_tokens": registers, "no_embed_class": registers > 0}
    model = build_model(None, architecture, tmp_path)
    model.load_state_dict(embedded.random_state(model))
    state = dict(model.state_dict())
    state["mask_token"] = torch.zeros(1, ARCHITECTURE["embed_dim"])
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        class_position = torch.randn(1, 1, ARCHITECTURE["embed_dim"])
        state["cls_token"] = state["cls_token"] - class_position
        state["pos_embed"] = torch.cat([class_position, state["pos_embed"]], dim=1)
    return model, state


def to_huggingface(state):
    """Meta's names -> Hugging Face's, written down independently of the reader."""
    renamed = {}
    for name, value in state.items():
        if name in ("cls_token", "mask_token", "register_tokens"):
            renamed[f"embeddings.{name}"] = value
        elif name == "pos_embed":
            renamed["embeddings.position_embeddings"] = value
        elif name.startswith("patch_embed.proj."):
            renamed["embeddings.patch_embeddings.projection." + name.split(".")[-1]] = value
        elif name.startswith("norm."):
            renamed["layernorm." + name.split(".")[-1]] = value
        else:
            _, block, *rest = name.split(".")
            kind, prefix = rest[-1], f"encoder.layer.{block}"
            inner = ".".join(rest[:-1])
            if inner == "attn.qkv":
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    renamed[f"{prefix}.attention.attention.{part}.{kind}"] = piece.contiguous()
            elif inner == "attn.proj":
                renamed[f"{prefix}.attention.output.dense.{kind}"] = value
            elif inner in ("ls1", "ls2"):
                renamed[f"{prefix}.layer_scale{inner[-1]}.lambda1"] = value
            else:
                renamed[f"{prefix}.{inner}.{kind}"] = value
    return renamed


def expected_features(model, images):
    pixels = images[:, None].expand(-1, 3, -1, -1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        tokens = model.forward_features((pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    return tokens[:, model.num_prefix_tokens :]


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("form", ["pth", "safetensors", "huggingface"])
def test_every_format_gives_the_same_features(tmp_path, registers, form):
    model, state = dinov2(tmp_path, registers=registers)
    if form == "pth":
        path = tmp_path / "backbone.pth"
        torch.save(state, path)
    elif form == "safetensors":
        path = tmp_path / "backbone.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "huggingface"
        path.mkdir()
        save_file(to_huggingface(state), path / "model.safetensors")
        config = {"model_type": "dinov2_with_registers" if registers else "dinov2", "num_attention_heads": 2}
        (path / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(path), device="cpu", dtype=torch.float32)
    images = torch.rand(2, 56, 84)
    features = backbone.features(images)
    assert features.shape == (2, 4, 6, 128)
    torch.testing.assert_close(features.flatten(1, 2), expected_features(model, images), atol=1e-4, rtol=1e-3)


def test_our_format_carries_its_architecture(tmp_path):
    architecture = embedded.tiny_architecture()
    model = build_model(None, architecture, tmp_path)
    path = tmp_path / "ours.safetensors"
    save_file(dict(model.state_dict()), path, metadata={HEADER_KEY: json.dumps(architecture)})
    backbone = load_backbone(str(path), device="cpu")
    assert (backbone.patch, backbone.dim) == (8, 48)


def test_layers_are_concatenated(tiny):
    both = load_backbone("random-tiny", device="cpu", layers=[-1, 0])
    assert both.dim == 2 * tiny.dim
    images = torch.rand(1, 32, 40)
    torch.testing.assert_close(both.features(images)[..., tiny.dim :], tiny.features(images))
    with pytest.raises(FewshotError, match="layers 0 to 1"):
        load_backbone("random-tiny", device="cpu", layers=[2])


def test_embedded_backbone_ships_and_tells_where_it_comes_from():
    backbone = load_backbone("embedded", device="cpu")
    assert (backbone.patch, backbone.dim, len(backbone.digest)) == (8, 192, 16)
    assert embedded.WEIGHTS.stat().st_size < 12e6
    first, second = backbone.features(torch.rand(2, 64, 64))
    assert (first - second).abs().max() > 0.1


def test_bfloat16_stays_close_to_float32():
    images = torch.rand(1, 112, 112)
    exact = load_backbone("embedded", device="cpu", dtype=torch.float32).features(images)
    fast = load_backbone("embedded", device="cpu", dtype=torch.bfloat16).features(images)
    similarity = torch.nn.functional.cosine_similarity(exact.flatten(0, 2), fast.flatten(0, 2))
    assert similarity.min() > 0.99


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.startswith("dinov2")])
def test_official_models_are_known_to_timm(name):
    torchvision_ops.ensure()
    import timm

    assert timm.is_model(BACKBONES[name].timm.partition(".")[0])
    assert BACKBONES[name].timm in timm.list_pretrained("*dinov2*")


def test_official_weights_without_network_say_what_to_do(monkeypatch):
    torchvision_ops.ensure()
    import timm

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(FewshotError, match=r"cannot be downloaded.*unreachable.*--backbone FILE"):
        load_backbone("dinov2_vits14")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no backbone"),
        (lambda path: path.write_bytes(b"junk" * 100), "cannot be read"),
        (lambda path: torch.save({"a": 1}, path), "does not hold a dictionary of tensors"),
        (lambda path: torch.save({"a": torch.ones(2)}, path), "not a DINOv2-style backbone"),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "cannot be read"),  # a pickled object
    ],
)
def test_files_that_are_no_backbone_are_refused(tmp_path, make, words):
    path = tmp_path / "backbone.pth"
    make(path)
    with pytest.raises(FewshotError, match=words) as caught:
        load_backbone(str(path))
    assert "backbone.pth" in str(caught.value)


def test_truncated_and_altered_checkpoints_are_refused(tmp_path):
    _, state = dinov2(tmp_path)
    whole = tmp_path / "whole.pth"
    torch.save(state, whole)
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(FewshotError, match=r"truncated\.pth"):
        load_backbone(str(truncated))
    del state["blocks.1.norm1.weight"]
    torch.save(state, whole)
    with pytest.raises(FewshotError, match=r"whole\.pth does not fit"):
        load_backbone(str(whole))


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FewshotError, match="type 'bert'"):
        read_checkpoint(tmp_path)
    with pytest.raises(FewshotError, match="not a Hugging Face"):
        read_checkpoint(tmp_path.parent)


@pytest.mark.parametrize("swiglu", [False, True])
def test_architecture_is_read_off_the_shapes(tmp_path, swiglu):
    architecture = {**ARCHITECTURE, "reg_tokens": 0, "no_embed_class": False}
    if swiglu:
        architecture |= {"mlp": "swiglu", "mlp_ratio": 2 * 8 / 3}
    state = dict(build_model(None, architecture, tmp_path).state_dict())
    if swiglu:  # Meta's names of the two layers
        state = {k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in state.items()}
    state["mask_token"] = torch.zeros(1, 128)
    found = infer_architecture(state, tmp_path)
    build_model(state, found, tmp_path)  # raises if a parameter does not fit
    assert {k: found[k] for k in ("patch_size", "embed_dim", "depth", "num_heads", "img_size")} == {
        k: ARCHITECTURE[k] for k in ("patch_size", "embed_dim", "depth", "num_heads", "img_size")
    }


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
