"""The embedded backbone's network: a ViT whose patch features are sharpened with details of its stem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fewshot.features.backbone import GREY_MEAN, GREY_STD
from fewshot.features.handmade import MultiscaleDerivatives, derivatives
from fewshot.features.stem import DETAIL_STRIDE, ConvStem, conv_stem

KERNEL = 5
"""Side of the depthwise convolution that joins patch and detail, in details."""

BLACK = -GREY_MEAN / GREY_STD
"""What slices are padded with; they are normalised already."""


class Encoded(NamedTuple):
    """What the network makes of a batch of images.

    Attributes:
        image: ``[B, dim]``, the class token.
        patches: ``[B, h, w, dim]``, normalised patch tokens.
        details: ``[B, h * 2, w * 2, width]``, normalised features at half the patch.
    """

    image: Tensor
    patches: Tensor
    details: Tensor


class DetailViT(VisionTransformer):
    """timm's VisionTransformer on a convolutional stem, with features at ``DETAIL_STRIDE`` pixels.

    A patch of eight pixels is coarser than many structures. Halving it would cost four times as many tokens; here
    the tokens, which know the surroundings, are interpolated and joined with the stem's maps, which know the place.

    Args:
        widths: channels of the stem's stages at strides 2, 4 and 8.
        detail: channels of the joined features.
        arguments: VisionTransformer's.
    """

    def __init__(self, *, widths: tuple[int, int, int], detail: int, **arguments: Any) -> None:
        super().__init__(embed_layer=conv_stem(widths), **arguments)
        self.stride = DETAIL_STRIDE
        self.width = detail + self.embed_dim + MultiscaleDerivatives.width
        self.detail = detail
        self.channels = arguments["in_chans"]
        self.join = Join(self.embed_dim, widths[1], detail)

    def encode(
        self, images: Tensor, *, hide: Callable[[Tensor], Tensor] | None = None, keep: Tensor | None = None
    ) -> Encoded:
        """All features of images ``[B, C, H, W]`` whose sides are multiples of the patch.

        Args:
            hide: replaces some of the stem's tokens ``[B, h, w, dim]`` (masked training).
            keep: ``[B, 1, 1, 1]`` factor of the stem's details (0 leaves all the work to the patch tokens).
        """
        stem: ConvStem = self.patch_embed
        near, tokens = stem.stages(images)
        image, patches = finish(self, tokens if hide is None else hide(tokens))
        return Encoded(image, patches, self.join(patches, near if keep is None else near * keep))

    def maps(self, images: Tensor) -> Tensor:
        """Details, interpolated patch tokens and plain derivatives side by side, for adapters.

        What training makes the features blind to (grey values, above all) still tells some structures apart.

        Args:
            images: ``[B, C, H, W]``, sides multiples of ``stride``.

        Returns:
            ``[B, H / 4, W / 4, width]``.
        """
        height, width = images.shape[-2:]
        patch = self.patch_embed.patch_size[0]
        padded = nn.functional.pad(images, (0, -width % patch, 0, -height % patch), value=BLACK)
        encoded = self.encode(padded)
        local = derivatives(images.float().mean(1, keepdim=True), DETAIL_STRIDE)
        rows, cols = local.shape[1:3]
        spread = interpolate(encoded.patches.permute(0, 3, 1, 2), encoded.details.shape[1:3])
        parts = (encoded.details, spread.permute(0, 2, 3, 1), local)
        return torch.cat([part[:, :rows, :cols].float() for part in parts], dim=-1)


def finish(model: VisionTransformer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of a patch embedding ``[B, h, w, dim]`` -> class token ``[B, dim]`` and patches ``[B, h, w, dim]``."""
    x = model.norm_pre(model._pos_embed(tokens))
    for block in model.blocks:
        x = block(x)
    x = model.norm(x)
    return x[:, 0], x[:, model.num_prefix_tokens :].unflatten(1, tokens.shape[1:3])


def interpolate(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps ``[B, C, h, w]`` at another resolution, bilinearly."""
    return nn.functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


class Join(nn.Module):
    """Patch tokens and the stem's maps -> features at half the patch: two projections, one convolutional block."""

    def __init__(self, dim: int, near: int, width: int) -> None:
        super().__init__()
        self.from_patches = nn.Linear(dim, width)
        self.from_near = nn.Conv2d(near, width, 1)
        self.mix = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.out = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, patches: Tensor, near: Tensor) -> Tensor:
        narrow = self.from_patches(patches).permute(0, 3, 1, 2)
        spread = interpolate(narrow, near.shape[-2:])
        joined = nn.functional.gelu(spread + self.from_near(near))
        mixed = self.norm(self.mix(joined).permute(0, 2, 3, 1))
        return self.out(joined.permute(0, 2, 3, 1) + self.mlp(mixed))
