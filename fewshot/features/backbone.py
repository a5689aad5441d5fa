"""A frozen vision transformer that turns slices into patch features."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.errors import FewshotError
from fewshot.features.attention import use_chunked_attention
from fewshot.features.device import choose_device, choose_dtype

GREY_MEAN, GREY_STD = 0.35, 0.3
"""Normalisation of the one-channel embedded backbone (its training's)."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

GPU_BATCH_TOKENS = 16384
"""Tokens per forward pass on a GPU; on a CPU larger batches were not faster per slice."""


class Backbone:
    """Patch features of a frozen DINOv2-style vision transformer (paper, section 2).

    Args:
        name: how the user called it; goes into provenance.
        model: a timm ``VisionTransformer`` with ``dynamic_img_size``, or a network that makes ``maps`` of its own
            and tells their ``stride`` and ``width`` and the ``channels`` it wants.
        size: pixels of a slice's longer side that suit this backbone when nothing else is asked for.
        magnification: at most so many pixels per voxel suit it, where small crops are magnified to ``size``.
        layers: indices of the blocks whose outputs are concatenated (negative from the end); the last by default.
            Empty for networks with maps of their own.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        dtype: computing precision; by default bfloat16 where the processor has it.

    Attributes:
        digest: of the weights, so that features of two backbones are never mixed.
        dim: channels of a feature vector, all layers together.
        patch: pixels from one feature vector to the next: a patch's side, for the embedded backbone half of it.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        *,
        size: int,
        magnification: float | None = None,
        layers: Sequence[int] | None = None,
        device: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.size = size
        self.magnification = magnification
        self.digest = weights_digest(model)
        self._joined = hasattr(model, "maps")
        if self._joined:
            if layers:
                raise FewshotError(
                    f"Backbone {name} joins its layers itself; leave out the choice of layers."
                )
            self.layers: list[int] = []
            self.patch: int = model.stride
            self.dim: int = model.width
            self._channels: int = model.channels
        else:
            self.layers = _positive_layers(layers, len(model.blocks), name)
            self.patch = model.patch_embed.patch_size[0]
            self.dim = model.embed_dim * len(self.layers)
            convolutions = (m for m in model.patch_embed.modules() if isinstance(m, nn.Conv2d))
            self._channels = next(convolutions).in_channels
        self.device = choose_device(device)
        self.dtype = dtype or choose_dtype(self.device)
        self._model = model.eval().requires_grad_(False).to(self.device, self.dtype)
        if self.device.type == "cpu" and self.dtype == torch.bfloat16 and hasattr(model, "blocks"):
            use_chunked_attention(self._model)
        self._mean, self._std = (value.to(self.device) for value in normalisation(self._channels))

    def batch_size(self, pixels: int) -> int:
        """How many slices of ``pixels`` pixels to pass at once on this device."""
        tokens = max(1, pixels // self.patch**2)
        return max(1, GPU_BATCH_TOKENS // tokens) if self.device.type == "cuda" else 1

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Normalised patch tokens of a batch of slices.

        Args:
            images: float ``[B, H, W]`` in [0, 1]; H and W multiples of ``patch``.

        Returns:
            float32 ``[B, H / patch, W / patch, dim]`` on the backbone's device.
        """
        pixels = images.to(self.device, torch.float32)[:, None].expand(-1, self._channels, -1, -1)
        pixels = ((pixels - self._mean) / self._std).to(self.dtype)
        if self._joined:
            return self._model.maps(pixels).float()
        maps = self._model.forward_intermediates(
            pixels, indices=self.layers, norm=True, stop_early=True, intermediates_only=True
        )
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1).float()


def normalisation(channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation ``[1, C, 1, 1]`` that images are normalised with: ImageNet's for three channels."""
    mean, std = (GREY_MEAN, GREY_STD) if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def weights_digest(model: nn.Module) -> str:
    """A digest of every parameter's name, shape and bytes; 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _positive_layers(layers: Sequence[int] | None, depth: int, name: str) -> list[int]:
    chosen = [index % depth if -depth <= index < depth else None for index in (layers or [-1])]
    if None in chosen:
        raise FewshotError(f"Backbone {name} has layers 0 to {depth - 1}; {list(layers or [])} does not fit.")
    return sorted({index for index in chosen if index is not None})
