"""The first Segment Anything, whatever its image encoder: ViT, TinyViT or our own small one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewshot.features.backbone import weights_digest
from fewshot.features.device import choose_dtype
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.architecture import PIXEL_MEAN, PIXEL_STD
from fewshot.refine.sam.model import Embedding, Frame, Masks, SamModel
from fewshot.refine.sam.prompts import boxes_of, by_kind, masks_of, points_of, to_native

PROMPTS = 8
"""Prompts decoded at once: some 100 MB each at 1024 pixels."""


class SegmentAnything(SamModel):
    """A ``segment_anything`` model (Kirillov et al., 2023), frozen.

    The image encoder runs in ``dtype``, prompts and decoder always in float32: they are quick.

    Args:
        name: registered name or file.
        network: a ``segment_anything.modeling.Sam`` or what has its parts. Its image encoder may tell ``channels``
            (else 3) and ``normalises``: then it gets grey values in [0, 1] and does the rest itself.
        device: where to compute.
        dtype: of the encoder; by default bfloat16 where the processor has it.
        unit: give the encoder values in [0, 1] without SAM's mean and deviation.
        note: what a reader of its results must know.
    """

    kind: ClassVar[str] = "sam"

    def __init__(
        self,
        name: str,
        network: Any,
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        unit: bool = False,
        note: str | None = None,
    ) -> None:
        self.name = name
        self.note = note
        # Embeddings of the same weights with other pixels must not be taken for these.
        self.digest = weights_digest(network) + ("-unit" if unit else "")
        self.size = int(network.image_encoder.img_size)
        self.patch = self.size // network.prompt_encoder.image_embedding_size[0]
        self.dtype = dtype or choose_dtype(device)
        self._plain = unit or getattr(network.image_encoder, "normalises", False)
        self._channels = getattr(network.image_encoder, "channels", 3)
        self.network = network.eval().requires_grad_(False)
        self.to(device)

    def to(self, device: torch.device) -> Self:
        if device.type == "cpu" and choose_dtype(device) == torch.float32:
            self.dtype = torch.float32
        self.device = device
        self.network.to(device)
        self.network.image_encoder.to(self.dtype)
        return self

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> list[Embedding]:
        # One by one on a CPU: larger batches are not faster there, and need memory.
        step = 1 if self.device.type == "cpu" else len(images)
        found: list[Embedding] = []
        for start in range(0, len(images), max(1, step)):
            pixels = self._pixels(torch.as_tensor(images[start : start + step], dtype=torch.float32))
            maps = self.network.image_encoder(pixels.to(self.device, self.dtype)).float()
            found += [{"image": of} for of in maps.cpu().numpy().astype(np.float16)]
        return found

    def _pixels(self, images: Tensor) -> Tensor:
        """Slices ``[B, H, W]`` in [0, 1] -> the encoder's images ``[B, C, size, size]``, content at the top left."""
        rows, cols = images.shape[-2:]
        if max(rows, cols) > self.size:
            raise ValueError(f"{self.name} takes images of at most {self.size} pixels, not {rows} x {cols}")
        pixels = images[:, None].expand(-1, self._channels, -1, -1)
        if not self._plain:
            mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (PIXEL_MEAN, PIXEL_STD))
            pixels = (pixels * 255 - mean) / std
        return functional.pad(pixels, (0, self.size - cols, 0, self.size - rows))

    @torch.inference_mode()
    def predict(
        self, embedding: Embedding, prompts: Sequence[Prompt], frame: Frame, *, multimask: bool = False
    ) -> Masks:
        image = torch.from_numpy(np.array(embedding["image"], np.float32)).to(self.device)[None]
        candidates = self.network.mask_decoder.num_multimask_outputs if multimask else 1
        logits = np.empty((len(prompts), candidates, *frame.native), np.float32)
        quality = np.empty((len(prompts), candidates), np.float32)
        for indices in by_kind(prompts).values():
            for start in range(0, len(indices), PROMPTS):
                part = indices[start : start + PROMPTS]
                low, expected = self._decode(image, [prompts[index] for index in part], frame, multimask)
                logits[part] = to_native(low, frame, self.size).cpu().numpy()
                quality[part] = expected.cpu().numpy()
        return Masks(logits, quality)

    def _decode(
        self, image: Tensor, prompts: Sequence[Prompt], frame: Frame, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits ``[P, M, h, w]`` and expected IoU ``[P, M]`` of prompts of one kind."""
        encoder = self.network.prompt_encoder
        sparse, dense = encoder(
            points=points_of(prompts, frame, self.device),
            boxes=boxes_of(prompts, frame, self.device),
            masks=masks_of(prompts, frame, self.size, encoder.mask_input_size, self.device),
        )
        return self.network.mask_decoder(
            image_embeddings=image,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
