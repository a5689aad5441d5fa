"""The small backbone that ships with the package: its architecture and where its weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[1] / "weights" / "embedded.safetensors"

ARCHITECTURE: dict[str, Any] = {
    "stem": "conv",
    "widths": [32, 64, 128],
    "detail": 96,
    "patch_size": 8,
    "in_chans": 1,
    "embed_dim": 192,
    "depth": 5,
    "mlp_ratio": 2.0,
    "num_heads": 3,
    "reg_tokens": 4,
    "img_size": 112,
    "no_embed_class": True,
}

TINY = {**ARCHITECTURE, "widths": [8, 16, 32], "detail": 48, "embed_dim": 48, "depth": 2, "reg_tokens": 0}
"""Small enough for tests of everything around the backbone."""


def build(architecture: dict[str, Any]) -> nn.Module:
    """A DetailViT of this architecture, with random weights."""
    from fewshot.features import torchvision_ops

    torchvision_ops.ensure()  # timm imports torchvision
    from fewshot.features.detail_vit import DetailViT

    arguments = {key: value for key, value in architecture.items() if key != "stem"}
    return DetailViT(**arguments, num_classes=0, global_pool="", dynamic_img_size=True)


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
