"""MobileSAM's image encoder: a TinyViT of timm, with SAM's neck.

Zhang et al., Faster Segment Anything (2023); Wu et al., TinyViT (2022). The published file names its parameters as
TinyViT's authors do. Names and the one difference to TinyViT, the last stage that keeps its resolution, are those of
github.com/ChaoningZhang/MobileSAM, ``mobile_sam/modeling/tiny_vit_sam.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fewshot.features import torchvision_ops
from fewshot.features.formats.tensors import State

STRIDE = 16
"""Pixels from one vector of the embedding to the next."""
IMAGE_SIZE = 1024
"""No tensor tells it."""

MARK = "image_encoder.patch_embed.seq.0.c.weight"

UNUSED = re.compile(r"image_encoder\.(norm_head|head)\.|.*\.attention_bias_idxs$|.*\.attn\.ab$")
"""The classifier's, and tables that follow from the window's size."""

TO_TIMM = tuple(
    (re.compile(rf"^image_encoder\.{pattern}"), replacement)
    for pattern, replacement in (
        (r"patch_embed\.seq\.0\.", "image_encoder.patch_embed.conv1."),
        (r"patch_embed\.seq\.2\.", "image_encoder.patch_embed.conv2."),
        (r"layers\.(\d+)\.blocks\.", r"image_encoder.stages.\1.blocks."),
    )
)
DOWNSAMPLE = re.compile(r"^image_encoder\.layers\.(\d+)\.downsample\.")


class TinyVitEncoder(nn.Module):
    """Images ``[B, 3, H, W]`` -> embedding ``[B, out, H / 16, W / 16]``.

    Args:
        img_size: pixels of the square image.
        embed_dims: channels of the stages.
        depths: blocks of the stages.
        num_heads: attention heads of the stages; the first has none.
        window_sizes: side of the stages' attention windows; the first has none.
        out_chans: channels of the embedding.
    """

    def __init__(
        self,
        *,
        img_size: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_sizes: Sequence[int],
        out_chans: int,
    ) -> None:
        super().__init__()
        torchvision_ops.ensure()  # both packages import torchvision
        from segment_anything.modeling.common import LayerNorm2d
        from timm.models.tiny_vit import TinyVit

        self.img_size = img_size
        whole: Any = TinyVit(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_sizes=tuple(window_sizes),
            num_classes=0,
            drop_path_rate=0.0,
        )
        whole.stages[-1].downsample.conv2.conv.stride = (1, 1)  # four stages, yet 16 pixels as in SAM
        self.patch_embed, self.stages = whole.patch_embed, whole.stages
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embedding of normalised images."""
        return self.neck(self.stages(self.patch_embed(images)))


def is_tiny_vit(state: State) -> bool:
    """Whether the image encoder is a TinyViT, in timm's naming."""
    return "image_encoder.patch_embed.conv1.conv.weight" in state


def to_timm(state: State) -> State:
    """The published names of the encoder -> timm's; the other parameters stay as they are."""
    converted: State = {}
    for name, value in state.items():
        if UNUSED.match(name):
            continue
        if found := DOWNSAMPLE.match(name):  # there the last part of a stage, in timm the first of the next
            name = f"image_encoder.stages.{int(found[1]) + 1}.downsample.{name[found.end() :]}"
        for pattern, replacement in TO_TIMM:
            name = pattern.sub(replacement, name)
        if name.startswith("image_encoder."):
            name = name.replace(".c.weight", ".conv.weight")
        converted[name] = value
    return converted


def tell(state: State) -> dict[str, Any]:
    """Arguments of `TinyVitEncoder`, from its parameters in timm's naming.

    Raises:
        MisfitError: if parameters are missing.
    """
    from fewshot.refine.sam.architecture import MisfitError, count, shape

    stages = count(state, "image_encoder.stages")
    dims = [shape(state, "image_encoder.patch_embed.conv2.conv.weight")[0]]
    heads, windows = [1], [1]
    for stage in range(1, stages):
        place = f"image_encoder.stages.{stage}"
        dims.append(shape(state, f"{place}.downsample.conv1.conv.weight")[0])
        attention, area = shape(state, f"{place}.blocks.0.attn.attention_biases")
        if math.isqrt(area) ** 2 != area:
            raise MisfitError(f"{place} has windows of {area} pixels, which are no squares")
        heads.append(attention)
        windows.append(math.isqrt(area))  # one bias for each distance in a window of this side
    return {
        "img_size": IMAGE_SIZE,
        "embed_dims": dims,
        "depths": [count(state, f"image_encoder.stages.{stage}.blocks") for stage in range(stages)],
        "num_heads": heads,
        "window_sizes": windows,
        "out_chans": shape(state, "image_encoder.neck.0.weight")[0],
    }
