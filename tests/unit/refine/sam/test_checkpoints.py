"""Files that people have: wrapped, prefixed, cut down, MobileSAM, our own, SAM 2."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fewshot.features import embedded
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam import Frame, load_sam, registry, small
from tests.unit.refine.sam.published import (
    mobile_sam,
    mobile_sam_encoder,
    picture,
    sam,
    same_parameters,
)

IMAGE = picture()[None] / np.float32(255)
FRAME = Frame((64, 64), (64, 64))
PROMPT = Prompt(np.array([[30.0, 20.0]]), np.array([1]))

WRAPPED = {
    "alone": lambda state: state,
    "under model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
    "under state_dict": lambda state: {"state_dict": state},
    "under model_state_dict": lambda state: {"model_state_dict": state},
    "under model_state": lambda state: {"model_state": state, "current_metric": 0.5},
    "of a parallel model": lambda state: {f"module.{name}": value for name, value in state.items()},
    "inside another": lambda state: {"model": {f"module.sam.{k}": v for k, v in state.items()}},
    "in half precision": lambda state: {name: value.half() for name, value in state.items()},
    "with its normalisation": lambda state: {**state, "pixel_mean": torch.ones(3, 1, 1)},
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_checkpoints_load(original, tmp_path, case):
    torch.save(WRAPPED[case](original.state_dict()), tmp_path / "sam.pth")
    loaded = load_sam(str(tmp_path / "sam.pth"), device="cpu")
    if case == "in half precision":
        assert all(value.dtype == torch.float32 for value in loaded.network.state_dict().values())
        return
    assert same_parameters(loaded, original)
    assert loaded.name == str(tmp_path / "sam.pth")
    assert (loaded.kind, loaded.size, loaded.patch, loaded.note) == ("sam", 64, 8, None)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"window": 8, "everywhere": ()},  # windows as large as the image
        {"everywhere": (0, 1, 2)},
        {"size": 96, "patch": 16, "width": 24, "depth": 1, "heads": 2, "window": 4, "everywhere": ()},
        {"dim": 24, "mlp": 8},
    ],
)
def test_the_architecture_is_read_off_the_tensors(tmp_path, shape):
    reference = sam(**shape)
    save_file(reference.state_dict(), tmp_path / "sam.safetensors")
    loaded = load_sam(str(tmp_path / "sam.safetensors"), device="cpu", dtype=torch.float32)
    assert same_parameters(loaded, reference)
    pixels = torch.randn(1, 3, loaded.size, loaded.size)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.network.image_encoder(pixels), reference.image_encoder(pixels), atol=1e-5, rtol=1e-5
        )


def test_the_published_sizes_are_recognised():
    """ViT-B and ViT-H as segment_anything builds them, without their values."""
    from segment_anything import sam_model_registry

    from fewshot.refine.sam import architecture

    for name in ("vit_b", "vit_h"):
        with torch.device("meta"):
            wanted = sam_model_registry[name]()
            state = wanted.state_dict()
            built = architecture.build(architecture.tell(state))
        assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in state.items()}
        assert [b.window_size for b in built.image_encoder.blocks] == [
            b.window_size for b in wanted.image_encoder.blocks
        ]
        assert [b.attn.num_heads for b in built.image_encoder.blocks] == [
            b.attn.num_heads for b in wanted.image_encoder.blocks
        ]
        assert built.image_encoder.img_size == 1024


@pytest.fixture(scope="module")
def mobile(tmp_path_factory):
    path = tmp_path_factory.mktemp("mobile") / "mobile_sam.pt"
    state = mobile_sam()
    torch.save(state, path)
    return state, path


@pytest.fixture(scope="module")
def mobile_loaded(mobile):
    return load_sam(str(mobile[1]), device="cpu", dtype=torch.float32)


def test_mobile_sam_loads_with_all_its_parameters(mobile, mobile_loaded):
    state, _ = mobile
    assert (mobile_loaded.size, mobile_loaded.patch) == (1024, 16)
    found = mobile_loaded.network.state_dict()
    unused = [name for name in state if name.startswith(("image_encoder.head.", "image_encoder.norm_head."))]
    assert len(found) == len(state) - len(unused)
    assert sum(v.numel() for v in found.values()) == sum(state[n].numel() for n in state.keys() - set(unused))
    pairs = {
        "patch_embed.seq.2.c.weight": "patch_embed.conv2.conv.weight",
        "patch_embed.seq.0.bn.running_var": "patch_embed.conv1.bn.running_var",
        "layers.0.blocks.1.conv3.bn.weight": "stages.0.blocks.1.conv3.bn.weight",
        "layers.0.downsample.conv1.c.weight": "stages.1.downsample.conv1.conv.weight",
        "layers.2.downsample.conv3.bn.bias": "stages.3.downsample.conv3.bn.bias",
        "layers.2.blocks.5.attn.attention_biases": "stages.2.blocks.5.attn.attention_biases",
        "layers.3.blocks.0.local_conv.c.weight": "stages.3.blocks.0.local_conv.conv.weight",
        "layers.3.blocks.1.mlp.fc2.bias": "stages.3.blocks.1.mlp.fc2.bias",
        "neck.2.weight": "neck.2.weight",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(state[f"image_encoder.{theirs}"], found[f"image_encoder.{ours}"])


def test_mobile_sam_keeps_the_resolution_in_its_last_stage(mobile_loaded):
    with torch.inference_mode():
        embedding = mobile_loaded.network.image_encoder(torch.randn(1, 3, 128, 128))
    assert embedding.shape == (1, 256, 8, 8)
    assert embedding.isfinite().all()


def test_mobile_sam_with_its_computed_tables_loads(mobile, tmp_path):
    """Versions differ in whether these are among the parameters."""
    state, _ = mobile
    tables = {
        f"{name.removesuffix('es')}_idxs": torch.zeros(value.shape[1], value.shape[1], dtype=torch.int64)
        for name, value in state.items()
        if name.endswith("attention_biases")
    }
    assert len(tables) == 10
    torch.save({"model": state | tables}, tmp_path / "mobile.pt")
    assert load_sam(str(tmp_path / "mobile.pt"), device="cpu").size == 1024


def test_the_names_make_the_published_tiny_vit():
    """TinyViT-5M has 5.39 M parameters (Wu et al., 2022), SAM's neck not counted."""
    learned = {
        name: int(np.prod(size))
        for name, size in mobile_sam_encoder().items()
        if "running_" not in name and "num_batches" not in name and ".neck." not in name
    }
    assert round(sum(learned.values()) / 1e6, 2) == 5.39


OWN = {"backbone": embedded.TINY, "size": 64, "dim": 32, "mlp": 48, "heads": 4, "depth": 1}


def own_file(path, dtype=torch.float16, architecture=None):
    model = small.build(OWN)
    torch.manual_seed(0)
    state = {name: torch.randn(value.shape) * 0.1 for name, value in model.state_dict().items()}
    header = {small.HEADER_KEY: json.dumps(architecture or OWN)}
    save_file({name: value.to(dtype) for name, value in state.items()}, path, header)
    return state


def test_our_own_file_is_built_as_its_header_tells(tmp_path, monkeypatch):
    state = own_file(tmp_path / "embedded-sam.safetensors")
    monkeypatch.setattr(registry, "EMBEDDED", tmp_path / "embedded-sam.safetensors")
    loaded = load_sam("embedded", device="cpu", dtype=torch.float32)
    assert (loaded.name, loaded.size, loaded.patch, loaded.note) == ("embedded", 64, 8, None)
    assert all(
        torch.equal(value, state[name].half().float()) for name, value in loaded.network.state_dict().items()
    )
    image = IMAGE[:, :, :48]
    grey = loaded._pixels(torch.from_numpy(image))
    assert grey.shape == (1, 1, 64, 64)
    np.testing.assert_array_equal(grey[0, 0, :, :48], image[0])  # the network normalises
    found = loaded.predict(loaded.encode(image)[0], [PROMPT], Frame((128, 96), (64, 48)), multimask=True)
    assert found.logits.shape == (1, 3, 128, 96)
    assert np.isfinite(found.logits).all()


def test_medsam_gets_images_from_0_to_1(original, file, tmp_path):
    """As its own inference does; the published file differs from SAM's in its name alone."""
    renamed = tmp_path / "medsam_vit_b.pth"
    renamed.write_bytes(file.read_bytes())
    medsam, plain = (load_sam(str(path), device="cpu", dtype=torch.float32) for path in (renamed, file))
    assert same_parameters(medsam, original)
    assert "MedSAM by its file's name" in medsam.note
    assert medsam.digest != plain.digest  # embeddings of the one are not taken for the other's
    np.testing.assert_array_equal(medsam._pixels(torch.from_numpy(IMAGE))[0, 2], IMAGE[0])


def test_sam2_goes_to_its_own_loader(tmp_path, monkeypatch):
    asked = {}

    def load_sam2(name, state, **options):
        asked.update(name=name, state=state, **options)
        return "a SAM 2"

    monkeypatch.setitem(sys.modules, "fewshot.refine.sam2", types.SimpleNamespace(load_sam2=load_sam2))
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    state = {"image_encoder.trunk.pos_embed": torch.ones(1, 2), "memory_encoder.x.weight": torch.ones(2)}
    torch.save({"model": state}, path)
    assert load_sam(str(path), device="cpu", dtype=torch.float32) == "a SAM 2"
    assert (asked["name"], asked["device"], asked["dtype"]) == (str(path), "cpu", torch.float32)
    assert asked["state"].keys() == state.keys()
    assert load_sam("random-tiny-2", device="cpu") == "a SAM 2"
    assert (asked["name"], asked["state"]) == ("random-tiny-2", None)
