"""SAM 2 for single slices, as the package's ``SAM2ImagePredictor``, with embeddings that can be kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewshot.features.backbone import IMAGENET_MEAN, IMAGENET_STD, weights_digest
from fewshot.features.device import choose_device, choose_dtype
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Embedding, Frame, Masks, SamModel
from fewshot.refine.sam2.geometry import OUTSIDE, to_image, to_native, to_square
from fewshot.refine.sam2.propagation import propagate
from fewshot.refine.sam2.tracking import Reference, Tracked

PROMPTS_AT_ONCE = 16
"""Prompts that pass through the decoder together; each needs its own copy of the image's features."""

TRUNK_STRIDE = 32
"""Pixels per cell of the encoder's coarsest level."""

LARGEST = float(np.finfo(np.float16).max)

FIRST_CORNER, SECOND_CORNER = 2, 3
"""How a box is told: as two points with these labels."""


class Sam2Model(SamModel):
    """A SAM 2 or SAM 2.1 of any size.

    The image encoder and the memory run in ``dtype``; prompts and masks of single slices in float32.

    Args:
        name: registered name or file.
        network: a ``SAM2Base`` of the package.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        dtype: by default bfloat16 where the processor multiplies it natively.
        note: what a reader of its results must know.
    """

    kind = "sam2"

    def __init__(
        self,
        name: str,
        network: Any,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        note: str | None = None,
    ) -> None:
        self.name, self.note = name, note
        self.digest = weights_digest(network)
        self.size: int = network.image_size
        self.patch = TRUNK_STRIDE
        self.device = choose_device(str(device))
        self.dtype = dtype or choose_dtype(self.device)
        self.network = network.to(self.device)

    def to(self, device: torch.device) -> Self:
        """Move to another device, in place; float32 on a CPU without bfloat16."""
        self.network.to(device)
        self.device = device
        if self.dtype != torch.float32:
            self.dtype = choose_dtype(device)
        return self

    def precision(self) -> torch.autocast:
        """Within it the network computes in ``dtype``; its weights stay as they are."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> list[Embedding]:
        """Embeddings of slices.

        Args:
            images: float32 ``[B, H, W]`` in [0, 1], H and W at most ``size``; black is added up to the square.

        Returns:
            Per slice ``features`` ``[C, s, s]``, s = size / 16, without any memory, and what the decoder looks at
            beside them: ``fine`` ``[C / 8, 4 s, 4 s]`` and ``medium`` ``[C / 4, 2 s, 2 s]``.
        """
        count, height, width = images.shape
        square = torch.zeros((count, self.size, self.size))
        square[:, :height, :width] = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        pixels = square.to(self.device)[:, None].expand(-1, 3, -1, -1)
        mean, std = (
            torch.tensor(value, device=self.device).view(1, 3, 1, 1)
            for value in (IMAGENET_MEAN, IMAGENET_STD)
        )
        with self.precision():
            levels = self.network.forward_image((pixels - mean) / std)["backbone_fpn"]
        fine, medium, features = (_halved(level) for level in levels[-3:])
        return [{"features": features[row], "fine": fine[row], "medium": medium[row]} for row in range(count)]

    def levels(self, embedding: Embedding) -> list[Tensor]:
        """The arrays of an embedding, fine to coarse, float32 ``[1, C, h, w]`` on the model's device."""
        return [
            torch.from_numpy(np.array(embedding[key], np.float32))[None].to(self.device)
            for key in ("fine", "medium", "features")
        ]

    @torch.inference_mode()
    def predict(
        self, embedding: Embedding, prompts: Sequence[Prompt], frame: Frame, *, multimask: bool = False
    ) -> Masks:
        """Masks of all objects that are prompted for in one slice, see `SamModel.predict`."""
        fine, medium, features = self.levels(embedding)
        if self.network.directly_add_no_mem_embed:
            features = features + self.network.no_mem_embed.view(1, -1, 1, 1)
        candidates = 3 if multimask else 1
        logits = np.empty((len(prompts), candidates, *frame.native), np.float32)
        quality = np.empty((len(prompts), candidates), np.float32)
        for rows in _alike(prompts):
            points, masks = self._tell([prompts[row] for row in rows], frame)
            sparse, dense = self.network.sam_prompt_encoder(points=points, boxes=None, masks=masks)
            found, expected, _, _ = self.network.sam_mask_decoder(
                image_embeddings=features,
                image_pe=self.network.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse.expand(len(rows), -1, -1),
                dense_prompt_embeddings=dense.expand(len(rows), -1, -1, -1),
                multimask_output=multimask,
                repeat_image=True,
                high_res_features=[fine, medium],
            )
            logits[rows] = to_native(found, frame, self.size).cpu().numpy()
            quality[rows] = expected.float().cpu().numpy()
        return Masks(logits, quality)

    def propagate(
        self,
        embeddings: Callable[[int], Embedding],
        extent: range,
        memory: Mapping[int, np.ndarray | Prompt],
        frame: Frame,
        *,
        start: int | None = None,
        references: Sequence[Reference] = (),
        patience: int = 2,
        notes: list[str] | None = None,
    ) -> Iterator[Tracked]:
        """Carry masks through a volume, see `fewshot.refine.sam2.propagation.propagate`."""
        return propagate(
            self,
            embeddings,
            extent,
            memory,
            frame,
            start=start,
            references=references,
            patience=patience,
            notes=notes,
        )

    def point_inputs(self, prompts: Sequence[Prompt], frame: Frame) -> tuple[Tensor, Tensor] | None:
        """Points and boxes of prompts that have equally many, (x, y) ``[P, N, 2]`` and labels ``[P, N]``."""
        told = [_points(prompt, frame) for prompt in prompts]
        if not len(told[0][1]):
            return None
        places, labels = (
            torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*told, strict=True)
        )
        return places, labels

    def _tell(
        self, prompts: Sequence[Prompt], frame: Frame
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """What the prompt encoder is told of prompts that are alike: points and rough masks."""
        if prompts[0].mask is None:
            return self.point_inputs(prompts, frame), None
        squares = [to_square(prompt.mask, frame, self.size, outside=OUTSIDE) for prompt in prompts]  # type: ignore[arg-type]
        small = interpolate(
            torch.cat(squares),
            size=self.network.sam_prompt_encoder.mask_input_size,
            mode="bilinear",
            antialias=True,
        )
        return self.point_inputs(prompts, frame), small.to(self.device)


def _halved(level: Tensor) -> np.ndarray:
    """As float16; values beyond its range, which no image had so far, become its largest."""
    halved = level.float().clamp(-LARGEST, LARGEST).half().cpu().numpy()
    return np.ascontiguousarray(halved)  # convolutions may put channels last, which files cannot hold


def _points(prompt: Prompt, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    places, labels = prompt.points, prompt.labels
    if prompt.box is not None:
        corners = np.array(prompt.box, np.float64).reshape(2, 2)
        places = np.concatenate([corners, np.asarray(places, np.float64).reshape(-1, 2)])
        labels = np.concatenate([[FIRST_CORNER, SECOND_CORNER], labels])
    return to_image(places, frame), np.asarray(labels, np.int32).reshape(-1)


def _alike(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Rows of prompts that fit into one batch: filling up with empty points would change the answers a little."""
    groups: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        groups[len(prompt.labels), prompt.box is not None, prompt.mask is not None].append(row)
    for rows in groups.values():
        for first in range(0, len(rows), PROMPTS_AT_ONCE):
            yield rows[first : first + PROMPTS_AT_ONCE]
