"""A backbone with the heads that its training needs; student and teacher are two of these."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightly.models.modules.heads import DINOProjectionHead
from torch import Tensor, nn

from fewshot.features.backbone import normalisation
from fewshot.features.detail_vit import DetailViT, finish
from fewshot.pretraining.settings import PretrainSettings
from fewshot.pretraining.views import sample_maps

DENSE_WIDTH = 64
HEAD_WIDTH, BOTTLENECK = 512, 128
WITHOUT_DETAILS = 0.3
"""Share of the crops whose stem details are taken away, so that the patch tokens learn to place things too."""


class Maps(NamedTuple):
    """Features of crops: ``[B, dim]``, ``[B, h, w, dim]`` and, where the backbone has them, ``[B, h', w', width]``."""

    image: Tensor
    patches: Tensor
    details: Tensor | None


class Network(nn.Module):
    """Backbone and projection heads.

    Args:
        backbone: a timm VisionTransformer (a DetailViT included).
        settings: sizes of the heads.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any, settings: PretrainSettings) -> None:
        super().__init__()
        self.backbone = backbone
        dim = backbone.embed_dim
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.channels: int = first_convolution(backbone).in_channels
        mean, std = normalisation(self.channels)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.heads = nn.ModuleDict()
        for name, weight in (("dino", settings.dino), ("ibot", settings.ibot)):
            if weight:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # lightly's call of weight_norm
                    self.heads[name] = DINOProjectionHead(
                        dim, HEAD_WIDTH, BOTTLENECK, settings.prototypes, batch_norm=True
                    )
        if settings.dense:
            widths = {"patches": dim}
            if isinstance(backbone, DetailViT):
                widths["details"] = backbone.detail
            for name, width in widths.items():
                self.heads[name] = nn.Sequential(
                    nn.Linear(width, 2 * DENSE_WIDTH), nn.GELU(), nn.Linear(2 * DENSE_WIDTH, DENSE_WIDTH)
                )

    def maps(self, images: Tensor, mask: Tensor | None = None, keep: Tensor | None = None) -> Maps:
        """Features of crops ``[B, 1, P, P]`` in [0, 1]; tokens at ``mask`` (bool ``[B, h, w]``) are hidden."""
        pixels = (images.expand(-1, self.channels, -1, -1) - self.mean) / self.std

        def hide(tokens: Tensor) -> Tensor:
            return (
                tokens if mask is None else torch.where(mask[..., None], self.mask_token.to(tokens), tokens)
            )

        if isinstance(self.backbone, DetailViT):
            return Maps(*self.backbone.encode(pixels, hide=hide, keep=keep))
        return Maps(*finish(self.backbone, hide(self.backbone.patch_embed(pixels))), None)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Everything that the losses compare.

        Args:
            batch: ``images`` ``[2B, 1, P, P]`` (first crops, then second), ``mask`` bool ``[2B, h, w]``, ``hidden``
                (whether to apply it), ``keep`` ``[2B, 1, 1, 1]``, ``local`` ``[L * B, 1, p, p]`` or None, ``places``
                ``[2B, N, 2]`` or None.
        """
        images, mask = batch["images"], batch["mask"]
        maps = self.maps(images, mask if batch["hidden"] else None, batch.get("keep"))
        out = {"image": maps.image}
        if "dino" in self.heads:
            out["dino"] = self.heads["dino"](maps.image)
            if batch.get("local") is not None:
                out["dino_local"] = self.heads["dino"](self.maps(batch["local"]).image)
        if "ibot" in self.heads:
            out["ibot"] = self.heads["ibot"](maps.patches[mask])
        if batch.get("places") is not None:
            for name in ("patches", "details"):
                if name in self.heads:
                    found = getattr(maps, name).permute(0, 3, 1, 2).float()
                    sampled = sample_maps(found, batch["places"], images.shape[-1])
                    out[name] = nn.functional.normalize(self.heads[name](sampled).float(), dim=-1)
        return out


def teacher_of(student: Network, settings: PretrainSettings) -> Network:
    """A second network with the same weights that no gradient reaches."""
    backbone = copy.deepcopy(student.backbone)
    teacher = Network(backbone, settings)
    teacher.load_state_dict(student.state_dict())
    return teacher.requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Exponential moving average of the student's parameters; statistics of batches are taken over."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(theirs)


def parameter_groups(network: Network, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Matrices are decayed; biases, norms and tokens are not (DINOv2)."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1 and p.shape[0] > 1]
    others = [p for p in network.parameters() if p.requires_grad and not (p.ndim > 1 and p.shape[0] > 1)]
    yield {"params": decayed, "weight_decay": weight_decay, "decayed": True}
    yield {"params": others, "weight_decay": 0.0, "decayed": False}


def first_convolution(backbone: nn.Module) -> nn.Conv2d:
    """The convolution that sees the image."""
    return next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
