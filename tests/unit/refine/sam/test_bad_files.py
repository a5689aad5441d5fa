"""Files that are no Segment Anything: one sentence each, with the file, what is wrong and what to do."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file

from fewshot.errors import FewshotError
from fewshot.features.weights import HEADER_KEY as BACKBONE_KEY
from fewshot.refine.sam import load_sam, small
from tests.unit.features.published import publish
from tests.unit.refine.sam.test_checkpoints import OWN, own_file

WHAT_TO_DO = r"; (download|give|check|make) |: download"


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("/nowhere/at/all",)


def write(content):
    return lambda path, _: path.write_bytes(content)


def saved(change):
    return lambda path, state: torch.save(change(state), path)


def without(*names):
    return saved(lambda s: {k: v for k, v in s.items() if not k.startswith(names)})


def cut(share):
    def make(path, state):
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return make


def unet(path, _):
    names = ("model.0.conv.unit0.conv.weight", "model.1.submodule.conv.unit0.conv.weight")  # MONAI's
    torch.save({name: torch.ones(4, 1, 3, 3) for name in names}, path)


def dinov2(path, _):
    torch.save(publish("dinov2", path.parent / "dinov2").meta(), path)


ADAPTER = "image_encoder.blocks.0.Adapter.channel.0.weight"
HEAD = "does not fit Segment Anything: "
OFFER = "give a checkpoint of SAM, MedSAM, MobileSAM or SAM 2"

WRONG = {
    "no file": ("w.pth", lambda *_: None, "no SAM file or folder"),
    "an empty file": ("w.pth", write(b""), "is empty"),
    "a web page": ("w.pth", write(b"<!DOCTYPE html><html>Sign in</html>"), "is a web page"),
    "a text": ("w.pt", write(b"see the drive\n" * 60), "is a text file"),
    "half a safetensors": ("w.safetensors", cut(0.5), "cut short"),
    "most of a pth": ("w.pth", cut(0.99), "may be cut short"),
    "code": ("w.pth", saved(lambda s: {**s, "x": Malicious()}), r"Python objects \(\w+.mkdir\)"),
    "a DINOv2 backbone": ("w.pth", dinov2, "vision transformer such as DINOv2.*" + OFFER),
    "a backbone of ours": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {BACKBONE_KEY: "{}"}),
        "holds a backbone of fewshot",
    ),
    "a U-Net": ("w.pth", unet, "holds a segmentation network such as a U-Net"),
    "a ResNet": ("w.pth", saved(lambda _: {"layer1.0.conv1.weight": torch.ones(2)}), "holds a ResNet"),
    "SAM 2 of transformers": (
        "w.pth",
        saved(lambda _: {"vision_encoder.backbone.x": torch.ones(2), "mask_decoder.y": torch.ones(2)}),
        "SAM 2 in Hugging Face's format; give Meta's .pt",
    ),
    "other tensors": ("w.pth", saved(lambda _: {"a": torch.ones(2)}), "lacks image_encoder.*and holds a"),
    "the encoder alone": (
        "w.pth",
        without("prompt_encoder", "mask_decoder"),
        "lacks prompt_encoder and mask_decoder",
    ),
    "no prompts": ("w.pth", without("prompt_encoder"), "lacks prompt_encoder and holds"),
    "no positions": ("w.pth", without("image_encoder.pos_embed"), HEAD + "it lacks image_encoder.pos_embed"),
    "no relative positions": (
        "w.pth",
        saved(lambda s: {k: v for k, v in s.items() if "rel_pos" not in k}),
        HEAD + r"it lacks image_encoder.blocks.0.attn.rel_pos_h",
    ),
    "a parameter less": (
        "w.pth",
        without("mask_decoder.transformer.layers.1.norm2.bias"),
        HEAD + "it lacks mask_decoder.transformer.layers.1.norm2.bias",
    ),
    "a block less": ("w.pth", without("image_encoder.blocks.1."), HEAD + ".*blocks"),
    "no tokens": ("w.pth", without("mask_decoder.mask_tokens"), HEAD + "it lacks mask_decoder.mask_tokens"),
    "adapters": (
        "sam-med2d.pth",
        saved(lambda s: {**s, ADAPTER: torch.ones(2, 2), f"{ADAPTER}x": torch.ones(2)}),
        HEAD + r"it has more than Segment Anything \(" + re.escape(ADAPTER) + r" and 1 more\), perhaps adapters",
    ),
    "another shape": (
        "w.pth",
        saved(lambda s: {**s, "mask_decoder.iou_token.weight": torch.ones(1, 40)}),
        HEAD + "the image encoder and the mask decoder differ",
    ),
    "a shape inside": (
        "w.pth",
        saved(lambda s: {**s, "image_encoder.blocks.1.norm1.weight": torch.ones(7)}),
        HEAD + r"image_encoder.blocks.1.norm1.weight has the shape \(7,\) in place of \(40,\)",
    ),
    "a flat table": (
        "w.pth",
        saved(lambda s: {**s, "image_encoder.pos_embed": torch.ones(5)}),
        HEAD + r"image_encoder.pos_embed has the shape \(5,\)",
    ),
    "positions in a rectangle": (
        "w.pth",
        saved(lambda s: {**s, "image_encoder.pos_embed": torch.ones(1, 8, 4, 40)}),
        "must be squares",
    ),
    "grey images": (
        "w.pth",
        saved(lambda s: {**s, "image_encoder.patch_embed.proj.weight": torch.ones(40, 1, 8, 8)}),
        "images of 1 channels",
    ),
    "heads that do not divide": (
        "w.pth",
        saved(lambda s: {**s, "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight": torch.ones(5, 48)}),
        "cannot be built.*num_heads",
    ),
    "whole numbers": (
        "w.pth",
        saved(lambda s: {**s, "image_encoder.neck.0.weight": s["image_encoder.neck.0.weight"].int()}),
        HEAD + "image_encoder.neck.0.weight holds whole numbers",
    ),
    "our header, damaged": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {small.HEADER_KEY: "{"}),
        "header of SAM file .* tells no architecture",
    ),
    "our header, another version's": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {small.HEADER_KEY: json.dumps({"size": 4})}),
        "header of SAM file .* tells no architecture",
    ),
    "our header, others' tensors": (
        "w.safetensors",
        lambda p, s: save_file(s, p, {small.HEADER_KEY: json.dumps(OWN)}),
        "does not fit the architecture in its header",
    ),
    "our header, another width": (
        "w.safetensors",
        lambda p, s: own_file(p, architecture={**OWN, "mlp": 50}),
        "does not fit the architecture in its header: .*mlp",
    ),
}  # fmt: skip


def refuse(path, words) -> None:
    with pytest.raises(FewshotError, match=words) as caught:
        load_sam(str(path), device="cpu")
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 500
    assert "Backbone file" not in sentence
    assert re.search(WHAT_TO_DO, sentence)


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_sam_is_refused(tmp_path, original, case):
    name, make, words = WRONG[case]
    make(tmp_path / name, original.state_dict())
    refuse(tmp_path / name, words)


FOLDERS = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "not a Hugging Face model folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "not a Hugging Face model folder"),
    "another model": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "sam2_video"}'),
        "type 'sam2_video', and SAM's is 'sam'",
    ),
    "half a config": (lambda folder: (folder / "config.json").write_text('{"mo'), "cannot be read as JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[1]"), "does not hold a JSON object"),
    "heads in words": (
        lambda folder: (folder / "config.json").write_text(
            '{"model_type": "sam", "mask_decoder_config": "default"}'
        ),
        "lacks image_encoder and prompt_encoder and holds mask_decoder.x",
    ),
    "half the weights": (lambda folder: os.truncate(folder / "model.safetensors", 900), "cut short"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_no_sam_is_refused(tmp_path, case):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"mask_decoder.x": torch.ones(900)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "sam"}')
    change, words = FOLDERS[case]
    change(folder)
    refuse(folder, words)


def test_a_backbones_folder_is_refused(tmp_path):
    model = publish("dinov2", tmp_path / "dinov2")
    refuse(shutil.copytree(model.folder, tmp_path / "copy"), "type 'dinov2'")
