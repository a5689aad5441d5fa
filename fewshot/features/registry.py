"""Backbones by name: the official DINOv2 and DINOv3 models, the embedded one, and a random one for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from fewshot.errors import FewshotError
from fewshot.features import embedded, torchvision_ops
from fewshot.features.backbone import Backbone
from fewshot.features.download import Weights, fetch
from fewshot.features.formats.meta import Architecture
from fewshot.features.formats.tensors import State
from fewshot.features.names import name_or_path
from fewshot.features.weights import read_checkpoint
from fewshot.progress import Progress


@dataclass(frozen=True)
class Entry:
    """One backbone that can be asked for by name.

    Attributes:
        weights: where they can be downloaded, for the official ones.
    """

    description: str
    weights: Weights | None = None


def _dinov2(letter: str, word: str, parameters: str) -> dict[str, Entry]:
    entries = {}
    for suffix, part, words in (("", "", ""), ("_reg", "_reg4", " with registers")):
        entries[f"dinov2_vit{letter}14{suffix}"] = Entry(
            f"official DINOv2 ViT-{letter.upper()}/14{words}, {parameters}",
            Weights(f"timm/vit_{word}_patch14{part}_dinov2.lvd142m"),
        )
    return entries


def _dinov3(letter: str, word: str, parameters: str) -> dict[str, Entry]:
    weights = Weights(f"timm/vit_{word}_patch16_dinov3.lvd1689m", licence="the DINOv3 licence")
    description = f"official DINOv3 ViT-{letter.upper()}/16, {parameters}, under a licence of its own"
    return {f"dinov3_vit{letter}16": Entry(description, weights)}


BACKBONES: dict[str, Entry] = {
    "embedded": Entry("small, patch 8, trained on CT and MR slices; ships with fewshot"),
    **_dinov2("s", "small", "22 M parameters"),
    **_dinov2("b", "base", "86 M parameters"),
    **_dinov2("l", "large", "304 M parameters"),
    **_dinov2("g", "giant", "1.1 B parameters"),
    **_dinov3("s", "small", "22 M parameters"),
    **_dinov3("b", "base", "86 M parameters"),
    "handmade": Entry("multi-scale derivatives, nothing learned; to compare with"),
    "random": Entry("the embedded architecture with random weights; to compare with"),
    "random-tiny": Entry("random weights, for tests of everything else"),
}

AUTO = "auto"
"""Stands for a name that `fewshot.features.choice.choose_backbone` finds."""

RANDOM = {"random": embedded.ARCHITECTURE, "random-tiny": embedded.TINY}
"""Architectures that can be had with random weights."""

OFFICIAL_PATCH = 14
"""DINOv2 and DINOv3 have patches of 14 and 16 pixels."""
DINO_SIZE = 448
"""Slice size in pixels: 32 x 32 patches of 14, 28 x 28 patches of 16."""
EMBEDDED_SIZE = 288
"""Slice size for the embedded patch-8 model: 36 x 36 patches, see docs/explanation/method.md."""
EMBEDDED_MAGNIFICATION = 2.5
"""Pixels per voxel: crops of 50 voxels gained a tenth of Dice at 128 pixels against 200 and more."""
TINY_SIZE = 64


def check_name(name: str) -> str:
    """A registered name or ``auto`` as it is, a file or folder as its full path.

    Raises:
        FewshotError: if there is neither, with what may have been meant.
    """
    return name_or_path(name, [*BACKBONES, AUTO], "backbone")


def load_backbone(
    name: str = "embedded",
    *,
    device: str = "auto",
    layers: Sequence[int] | None = None,
    dtype: Any = None,
    progress: Progress | None = None,
) -> Backbone:
    """A frozen backbone by registered name or from a checkpoint file or folder.

    Args:
        name: a key of ``BACKBONES``, ``auto``, or the path of a checkpoint in Meta's, Hugging Face's, timm's or
            our format.
        device: ``auto``, ``cpu`` or ``cuda``.
        layers: blocks whose outputs are concatenated; the last by default.
        dtype: computing precision; by default bfloat16 where the processor has it.
        progress: told of a download (``download``, in megabytes); without it a bar on stderr shows it.

    Raises:
        FewshotError: unknown name, no network for a download, or a file that is not a backbone.
    """
    name = check_name(name)
    if name == AUTO:
        from fewshot.features.choice import choose_backbone

        name = choose_backbone(device, progress=progress).name
    if name == "handmade":
        from fewshot.features.handmade import MultiscaleDerivatives

        return Backbone(
            name,
            MultiscaleDerivatives(),
            size=EMBEDDED_SIZE,
            magnification=EMBEDDED_MAGNIFICATION,
            device="cpu",
            dtype=torch.float32,
        )
    model, _ = load_model(name, progress=progress)
    official = model.patch_embed.patch_size[0] >= OFFICIAL_PATCH
    size = TINY_SIZE if name == "random-tiny" else DINO_SIZE if official else EMBEDDED_SIZE
    most = None if official or name == "random-tiny" else EMBEDDED_MAGNIFICATION
    return Backbone(name, model, size=size, magnification=most, layers=layers, device=device, dtype=dtype)


def load_model(name: str, *, progress: Progress | None = None) -> tuple[Any, Architecture]:
    """The network of a backbone and what it was built from.

    Args:
        name: as for `load_backbone`, but ``auto``.
        progress: told of a download.

    Raises:
        FewshotError: as `load_backbone`.
    """
    name = check_name(name)
    if name == "handmade":
        raise FewshotError("The backbone 'handmade' has no network; give another one.")
    if name in RANDOM:
        architecture = RANDOM[name]
        model = build_model(None, architecture, Path(name))
        model.load_state_dict(embedded.random_state(model))
        return model, architecture
    if name == "embedded":
        path = embedded.WEIGHTS
    elif name in BACKBONES:
        weights = BACKBONES[name].weights
        assert weights
        path = fetch(name, weights, progress=progress)
    else:
        path = Path(name)
    state, architecture = read_checkpoint(path)
    return build_model(state, architecture, path), architecture


def build_model(state: State | None, architecture: Architecture, path: Path) -> Any:
    """A vision transformer of timm with this architecture, holding these parameters.

    Args:
        state: parameters in timm's naming; None leaves random ones.
        architecture: as `read_checkpoint` tells it.
        path: for messages.

    Raises:
        FewshotError: if there is no such architecture, or parameters are missing, left over or of another shape.
    """
    torchvision_ops.ensure()  # timm imports torchvision
    from fewshot.features import dino

    try:
        model = embedded.build(architecture) if "stem" in architecture else dino.build(architecture)
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise FewshotError(
            f"{path} tells an architecture that cannot be built ({_first_reason(error)}); make or download the file "
            "again with this version of fewshot."
        ) from error
    if state is not None:
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise FewshotError(
                f"{path} does not fit the architecture that its tensors suggest ({_first_reason(error)}); "
                "give an unmodified DINOv2 or DINOv3 checkpoint."
            ) from error
    return model


def _first_reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return shorten(lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0], 160)
