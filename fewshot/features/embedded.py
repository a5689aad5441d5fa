"""The small backbone that ships with the package: a ViT with a convolutional stem for one-channel images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[1] / "weights" / "embedded.safetensors"

ARCHITECTURE = {
    "stem": "conv",
    "patch_size": 8,
    "in_chans": 1,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "reg_tokens": 4,
    "img_size": 112,
    "no_embed_class": True,
}


class ConvStem(nn.Module):
    """Three stride-2 convolutions instead of one linear projection: learns faster from few images.

    Takes timm's place of ``patch_embed``: ``[B, 1, H, W]`` -> ``[B, H/8, W/8, dim]`` (timm's dynamic-size layout).
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        widths = (in_chans, 24, 48, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(4, after),
                nn.GELU(),
            ]
        self.net = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-1], embed_dim, 1)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(self.net(images)).permute(0, 2, 3, 1)

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Patches along each axis for an image of ``size``; timm asks for it."""
        return size[0] // self.patch_size[0], size[1] // self.patch_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per patch; timm asks for it."""
        return self.patch_size[0] if as_scalar else self.patch_size


def conv_stem(img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: object) -> ConvStem:
    """A ConvStem, called the way timm calls its ``embed_layer`` (further arguments do not apply to it)."""
    return ConvStem(img_size, patch_size, in_chans, embed_dim)


def tiny_architecture() -> dict[str, object]:
    """A random ViT small enough for tests of everything around the backbone."""
    return {**ARCHITECTURE, "embed_dim": 48, "depth": 2, "num_heads": 3, "reg_tokens": 0}


def random_state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """The same random weights on every machine: drawn in double precision, in the order of the names."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in sorted(model.state_dict().items()):
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
        fan_in = max(1, value[0].numel()) if value.ndim > 1 else 1
        state[name] = (
            1 + 0.02 * noise if name.endswith("weight") and value.ndim == 1 else noise * fan_in**-0.5
        )
    return state
