"""Backbones by name: the official DINOv2 models through timm, the embedded one, and a random one for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from fewshot.errors import FewshotError
from fewshot.features import embedded, torchvision_ops
from fewshot.features.backbone import Backbone
from fewshot.features.weights import Architecture, State, read_checkpoint


@dataclass(frozen=True)
class Entry:
    """One backbone that can be asked for by name."""

    description: str
    timm: str | None = None


def _official(letter: str, word: str, parameters: str) -> dict[str, Entry]:
    plain = Entry(
        f"official DINOv2 ViT-{letter.upper()}/14, {parameters}", f"vit_{word}_patch14_dinov2.lvd142m"
    )
    registers = Entry(
        f"official DINOv2 ViT-{letter.upper()}/14 with registers, {parameters}",
        f"vit_{word}_patch14_reg4_dinov2.lvd142m",
    )
    return {f"dinov2_vit{letter}14": plain, f"dinov2_vit{letter}14_reg": registers}


BACKBONES: dict[str, Entry] = {
    "embedded": Entry("2.8 M parameters, patch 8, trained on CT and MR slices; ships with fewshot"),
    **_official("s", "small", "22 M parameters"),
    **_official("b", "base", "86 M parameters"),
    **_official("l", "large", "304 M parameters"),
    **_official("g", "giant", "1.1 B parameters"),
    "random-tiny": Entry("random weights, for tests of everything else"),
}

DINO_SIZE = 448
"""Slice size in pixels for patch-14 models: 32 x 32 patches."""
EMBEDDED_SIZE = 288
"""Slice size for the embedded patch-8 model: 36 x 36 patches, see docs/explanation/method.md."""
TINY_SIZE = 64


def load_backbone(
    name: str = "embedded", *, device: str = "auto", layers: Sequence[int] | None = None, dtype: Any = None
) -> Backbone:
    """A frozen backbone by registered name or from a checkpoint file or folder.

    Args:
        name: a key of ``BACKBONES``, or the path of a checkpoint in Meta's, Hugging Face's or our format.
        device: ``auto``, ``cpu`` or ``cuda``.
        layers: blocks whose outputs are concatenated; the last by default.
        dtype: computing precision; by default bfloat16 where the processor has it.

    Raises:
        FewshotError: unknown name, no network for a download, or a file that is not a DINOv2 backbone.
    """
    torchvision_ops.ensure()  # timm imports torchvision
    make = partial(Backbone, name, layers=layers, device=device, dtype=dtype)
    if name == "embedded":
        return make(build_model(*read_checkpoint(embedded.WEIGHTS), embedded.WEIGHTS), size=EMBEDDED_SIZE)
    if name == "random-tiny":
        architecture = embedded.tiny_architecture()
        model = build_model(None, architecture, Path(name))
        model.load_state_dict(embedded.random_state(model))
        return make(model, size=TINY_SIZE)
    if name in BACKBONES:
        return make(_download(name), size=DINO_SIZE)
    path = Path(name).expanduser()
    if not path.exists():
        raise FewshotError(
            f"There is no backbone '{name}': give a checkpoint file or folder, or one of {', '.join(BACKBONES)}."
        )
    model = build_model(*read_checkpoint(path), path)
    return make(model, size=EMBEDDED_SIZE if model.patch_embed.patch_size[0] < 14 else DINO_SIZE)


def build_model(state: State | None, architecture: Architecture, path: Path) -> Any:
    """A VisionTransformer of timm with this architecture, holding these parameters.

    Raises:
        FewshotError: if parameters are missing, left over or of another shape.
    """
    torchvision_ops.ensure()
    from timm.layers.mlp import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    arguments = {key: value for key, value in architecture.items() if key not in ("stem", "mlp")}
    if architecture.get("stem") == "conv":
        arguments["embed_layer"] = embedded.conv_stem
    if architecture.get("mlp") == "swiglu":
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    model = VisionTransformer(**arguments, num_classes=0, global_pool="", dynamic_img_size=True)
    if state is not None:
        try:
            if architecture.get("stem") != "conv":
                state = checkpoint_filter_fn(dict(state), model)
            model.load_state_dict(state)
        except RuntimeError as error:
            raise FewshotError(
                f"{path} does not fit the DINOv2 architecture that its tensors suggest ({_first_reason(error)}); "
                "give an unmodified DINOv2 checkpoint."
            ) from error
    return model


def _download(name: str) -> Any:
    import timm

    try:
        return timm.create_model(
            str(BACKBONES[name].timm), pretrained=True, num_classes=0, dynamic_img_size=True
        )
    except Exception as error:  # any of several network libraries may fail, each in its own way
        raise FewshotError(
            f"The weights of {name} are not on this machine and cannot be downloaded ({_first_reason(error)}); "
            "give a checkpoint file with --backbone FILE, or use --backbone embedded."
        ) from error


def _first_reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return shorten(lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0], 160)
