"""The convolutional stem of the embedded backbone, in the place of timm's patch embedding."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

DETAIL_STRIDE = 4
"""Pixels between two of the maps that the stem hands to the details."""
PATCH = 8
GROUPS = 4


class ConvStem(nn.Module):
    """Three stages of stride 2 instead of one linear projection: learns faster from few images.

    Args:
        img_size: pixels of the square images whose positions are learned.
        patch_size: 8.
        in_chans: channels of an image.
        embed_dim: channels of a token.
        widths: channels after each stage.
    """

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, widths: tuple[int, int, int]
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.near = nn.Sequential(_down(in_chans, half), _down(half, quarter), Residual(quarter))
        self.far = nn.Sequential(_down(quarter, eighth), nn.Conv2d(eighth, embed_dim, 1))
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, C, H, W]`` -> maps ``[B, widths[1], H/4, W/4]`` and tokens ``[B, H/8, W/8, dim]``."""
        near = self.near(images)
        return near, self.far(near).permute(0, 2, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[1]

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Patches along each axis for an image of ``size``; timm asks for it."""
        return size[0] // self.patch_size[0], size[1] // self.patch_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per patch; timm asks for it."""
        return self.patch_size[0] if as_scalar else self.patch_size


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.gelu(maps + self.body(maps))


def conv_stem(widths: tuple[int, int, int]) -> Callable[..., ConvStem]:
    """A maker of stems as timm calls its ``embed_layer`` (its further arguments do not apply here)."""

    def make(img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: object) -> ConvStem:
        return ConvStem(img_size, patch_size, in_chans, embed_dim, widths)

    return make


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(GROUPS, after), nn.GELU()
    )
