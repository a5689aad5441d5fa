"""Our loader against transformers: the same features from every format, on the trained grid of patches and others."""

import pytest
import torch

from fewshot.features import BACKBONES, load_backbone
from fewshot.features.dino import build
from fewshot.features.formats.meta import to_timm
from fewshot.features.weights import read_checkpoint
from tests.unit.features.published import GRID, publish

MODELS = {
    "dinov2": ("dinov2", {}),
    "dinov2, wider": ("dinov2", {"dim": 192, "depth": 4}),
    "dinov2, swiglu": ("dinov2", {"use_swiglu_ffn": True}),
    "dinov2, registers": ("dinov2_with_registers", {}),
    "dinov2, registers, wider": ("dinov2_with_registers", {"dim": 192, "depth": 4}),
    "dinov3": ("dinov3_vit", {}),
    "dinov3, wider": ("dinov3_vit", {"dim": 192, "depth": 4}),
}
FORMS = (
    "folder",
    "sharded folder",
    "timm folder",
    "huggingface safetensors",
    "meta safetensors",
    "timm safetensors",
    "meta pth",
    "training pth",
)
GRIDS = [(GRID, GRID), (6, 5), (3, 3), (2, 8)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            kind, settings = MODELS[name]
            made[name] = publish(kind, tmp_path_factory.mktemp("published") / "model", **settings)
        return made[name]

    return get


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_transformers(published, tmp_path, name, form):
    model = published(name)
    backbone = load_backbone(str(model.write(form, tmp_path / "w")), device="cpu", dtype=torch.float32)
    assert (backbone.patch, backbone.size) == (model.patch, 448)
    for height, width in GRIDS:
        images = torch.rand(2, height * model.patch, width * model.patch)
        features = backbone.features(images)
        assert features.shape == (2, height, width, backbone.dim)
        torch.testing.assert_close(features.flatten(1, 2), model.features(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["dinov2, registers", "dinov3"])
def test_the_same_weights_have_the_same_digest_in_every_format(published, tmp_path, name):
    paths = [published(name).write(form, tmp_path / form) for form in FORMS]
    assert len({load_backbone(str(path), device="cpu").digest for path in paths}) == 1


def test_what_only_the_config_tells_is_believed(tmp_path):
    """Heads narrower than the published ones, and another epsilon, neither of which a tensor's shape shows."""
    model = publish("dinov2", tmp_path / "narrow", num_attention_heads=4, layer_norm_eps=1e-2)
    other = publish(
        "dinov3_vit", tmp_path / "v3", num_attention_heads=4, layer_norm_eps=1e-2, rope_theta=10.0
    )
    for published in (model, other):
        images = torch.rand(1, 3 * published.patch, 5 * published.patch)
        features = load_backbone(str(published.folder), device="cpu", dtype=torch.float32).features(images)
        torch.testing.assert_close(features.flatten(1, 2), published.features(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["dinov2", "dinov2, swiglu", "dinov2, registers", "dinov3"])
def test_names_become_those_that_timm_makes_of_them(published, tmp_path, name):
    ours, _ = to_timm(published(name).meta(), tmp_path)
    timms = published(name).timm()
    assert set(ours) == set(timms)
    for key, value in timms.items():
        torch.testing.assert_close(ours[key], value, atol=0, rtol=0)


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].weights])
def test_the_architecture_of_every_official_model_is_read_off_its_shapes(name, tmp_path):
    import timm

    hub = BACKBONES[name].weights.repository.removeprefix("timm/")
    assert hub in timm.list_pretrained("*dinov*")
    with torch.device("meta"):  # shapes without memory: the largest has 1.1 B parameters
        official = timm.create_model(hub, num_classes=0, dynamic_img_size=True)
        state, architecture = to_timm(official.state_dict(), tmp_path)
        ours = build(architecture)
    shapes = {key: value.shape for key, value in official.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert {key: value.shape for key, value in state.items()} == shapes
    for mine, theirs in zip(ours.blocks, official.blocks, strict=True):
        assert mine.attn.num_heads == theirs.attn.num_heads
        assert (mine.norm1.eps, type(mine.mlp)) == (theirs.norm1.eps, type(theirs.mlp))


def test_layers_and_precision_of_dinov3(published):
    model = published("dinov3")
    images = torch.rand(1, 64, 96)
    exact = load_backbone(str(model.folder), device="cpu", dtype=torch.float32, layers=[0, -1])
    fast = load_backbone(str(model.folder), device="cpu", dtype=torch.bfloat16, layers=[0, -1])
    assert exact.layers == [0, 2]
    similarity = torch.nn.functional.cosine_similarity(exact.features(images), fast.features(images), dim=-1)
    assert similarity.min() > 0.99


def test_a_dinov3_with_biases_that_are_all_zero_is_the_published_one(published, tmp_path):
    """Published S and B have zeros there, and timm's files leave them out: both must be the same backbone."""
    state = published("dinov3").meta()
    biases = [name for name in state if name.endswith("qkv.bias")]
    path = tmp_path / "zeros.pth"
    torch.save(state | {name: torch.zeros_like(state[name]) for name in biases}, path)
    found, architecture = read_checkpoint(path)
    assert architecture["qkv_bias"] is False
    assert not [name for name in found if "bias" in name and "attn.q" in name]
