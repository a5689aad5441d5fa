"""From studies to a weights file that is a backbone, from several starts."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from fewshot.errors import FewshotError
from fewshot.features import dino, load_backbone
from fewshot.features.backbone import normalisation
from fewshot.features.registry import load_model
from fewshot.features.weights import HEADER_KEY
from fewshot.pretraining import pretrain, run
from fewshot.pretraining.losses import Losses
from fewshot.pretraining.run import run_folder, write_weights
from tests.unit.pretraining.tiny import DENSE, READERS, START, tiny_settings


@pytest.fixture
def out(tmp_path, slices_folder):
    """A weights file to come, whose slices are cut already."""
    out = tmp_path / "new" / "weights.safetensors"
    shutil.copytree(slices_folder, run_folder(out))
    return out


@pytest.fixture
def kept(monkeypatch):
    """The trainings that `pretrain` made."""
    trainings = []

    class Kept(run.Training):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            trainings.append(self)

    monkeypatch.setattr(run, "Training", Kept)
    return trainings


def train(out, start=START, changes=DENSE, **options):
    return pretrain(
        READERS, out, start=start, settings=tiny_settings(**{"images": 8, **changes}), device="cpu", **options
    )


def images(side, count=2):
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(0))


def test_the_file_gives_the_features_of_the_teacher(out, kept):
    told = []
    result = train(out, changes={"warmup": 0}, progress=lambda *said, **_: told.append(said))
    assert (result.path, result.images, result.finished, result.resumed, result.trained) == (
        out,
        8,
        True,
        False,
        True,
    )
    assert told == [("pretrain", 4, 8), ("pretrain", 8, 8)]
    teacher = kept[0].teacher.backbone.eval()
    mean, std = normalisation(1)
    with torch.inference_mode():
        expected = teacher.maps((images(64)[:, None] - mean) / std)
    found = load_backbone(str(out), device="cpu", dtype=torch.float32).features(images(64))
    assert found.shape[:3] == (2, 16, 16)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)
    begun = load_backbone(START, device="cpu", dtype=torch.float32).features(images(64))
    assert (found - begun).abs().max() > 0.001


def test_the_file_says_how_it_was_made_and_nothing_of_the_patients(out):
    train(out, changes={**DENSE, "images": 4})
    assert {value.dtype for value in load_file(out).values()} == {torch.float16}
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {HEADER_KEY, "training"}
    card = json.loads(metadata["training"])
    assert (card["started_from"], card["studies"], card["images"]) == (START, 2, 4)
    assert card["settings"]["batch"] == 4
    assert "abdomens" not in str(metadata)


def test_the_file_has_the_permissions_of_other_files(out):
    model, architecture = load_model(START)
    before = os.umask(0o027)
    try:
        write_weights(out, model, architecture, {})
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_weights_of_before(out, monkeypatch):
    out.write_bytes(b"before")
    model, architecture = load_model(START)
    monkeypatch.setattr(
        run.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(
        FewshotError, match=r"cannot be written to .*weights.safetensors \(No space left on device\)"
    ):
        write_weights(out, model, architecture, {})
    assert out.read_bytes() == b"before"
    assert not list(out.parent.glob("*.part"))


def test_a_loss_that_is_no_number_leaves_the_weights_of_before(out, monkeypatch):
    out.write_bytes(b"before")
    original = Losses.total
    monkeypatch.setattr(Losses, "total", lambda self, terms: original(self, terms) * float("nan"))
    with pytest.raises(FewshotError, match="no longer a number"):
        train(out)
    assert out.read_bytes() == b"before"


def test_a_finished_training_is_not_repeated(out):
    train(out)
    weights = load_file(out)
    again = train(out)
    assert (again.images, again.resumed, again.finished, again.trained) == (8, True, True, False)
    assert all(torch.equal(value, weights[name]) for name, value in load_file(out).items())


def test_restart_forgets_everything(out):
    train(out)
    folder = run_folder(out)
    state = (folder / "checkpoint.pt").read_bytes()
    (folder / "pictures" / "000000099.png").touch()
    events = {file.name for file in (folder / "curves").iterdir()}
    before = (folder / "slices.bin").stat().st_mtime_ns
    result = train(out, changes={**DENSE, "batch": 8}, restart=True)
    assert (result.images, result.resumed) == (8, False)
    assert (folder / "slices.bin").stat().st_mtime_ns != before
    assert [file.name for file in sorted((folder / "pictures").iterdir())] == [
        "000000000.png",
        "000000008.png",
    ]
    assert not events & {file.name for file in (folder / "curves").iterdir()}
    assert (folder / "checkpoint.pt").read_bytes() != state


def test_without_a_start_the_embedded_architecture_is_trained(out, kept):
    train(out, start=None, changes={**DENSE, "images": 4})
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["training"])["started_from"] == "random weights"
    assert json.loads(metadata[HEADER_KEY]) == run.embedded.ARCHITECTURE
    assert load_backbone(str(out), device="cpu").patch == 4


def test_a_training_can_go_on_from_its_own_result(out, tmp_path):
    train(out)
    second = tmp_path / "second.safetensors"
    result = train(second, start=str(out), changes={**DENSE, "warmup": 0, "images": 4})
    assert not result.resumed
    first, after = load_file(out), load_file(second)
    assert any(not torch.equal(after[name], value) for name, value in first.items())
    with pytest.raises(FewshotError, match="other start weights"):
        train(second, changes={**DENSE, "warmup": 0, "images": 4})


@pytest.fixture
def dinov2(tmp_path):
    """A cut-down DINOv2 with random weights in timm's naming, without our header."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=2,
        num_heads=1,
        num_classes=0,
        global_pool="",
        init_values=1.0,
    )
    path = tmp_path / "dinov2.safetensors"
    save_file(model.state_dict(), path)
    return path


def test_a_dinov2_can_be_trained_further(dinov2, out, kept):
    train(out, start=str(dinov2), changes={"images": 4, "warmup": 0, "learning_rate": 0.01})
    found = load_backbone(str(out), device="cpu", dtype=torch.float32)
    assert (found.patch, found.dim) == (14, 64)
    teacher = kept[0].teacher.backbone.eval()
    mean, std = normalisation(3)
    with torch.inference_mode():
        pixels = (images(56)[:, None].expand(-1, 3, -1, -1) - mean) / std
        expected = teacher.forward_features(pixels)[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(found.features(images(56)), expected, atol=0.02, rtol=0.01)
    before, after = load_file(dinov2), load_file(out)
    assert before.keys() == after.keys()
    assert not torch.equal(before["patch_embed.proj.weight"].half(), after["patch_embed.proj.weight"])


def test_a_dinov3_is_refused(tmp_path):
    architecture = {
        "family": "dinov3",
        "patch_size": 16,
        "embed_dim": 64,
        "depth": 1,
        "num_heads": 1,
        "reg_tokens": 4,
    }
    path = tmp_path / "dinov3.safetensors"
    write_weights(path, dino.build(architecture), architecture, {})
    with pytest.raises(
        FewshotError, match=r"dinov3.safetensors cannot be trained further here: start from a DINOv2"
    ):
        train(tmp_path / "weights.safetensors", start=str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["dinov3.safetensors"]


def test_the_weights_file_must_be_safetensors(tmp_path):
    with pytest.raises(FewshotError, match=r"ends in .safetensors; .*weights.pth does not"):
        train(tmp_path / "weights.pth")


def test_studies_that_are_left_out_are_told_before_the_training(tmp_path):
    def broken():
        raise FewshotError("x.nii is damaged.")

    order = []
    pretrain(
        {"abdomens/0": READERS["abdomens/0"], "abdomens/x": broken},
        tmp_path / "weights.safetensors",
        start=START,
        settings=tiny_settings(**DENSE, images=4),
        left_out=order.append,
        progress=lambda stage, *_, **__: order.append(stage),
    )
    assert order[:3] == ["slices"] * 3
    assert order.index({"abdomens/x": "x.nii is damaged."}) == order.index("pretrain") - 1
