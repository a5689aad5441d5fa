"""What every Segment Anything model does, whatever its package: encode a slice once, prompt it many times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from fewshot.refine.prompt import Prompt

Embedding = dict[str, np.ndarray]
"""What a model keeps of one image, float16 arrays by name; goes to the feature bank as it is."""


@dataclass(frozen=True)
class Frame:
    """How a slice lies in the image that a model sees.

    Attributes:
        native: rows and columns of the slice on the volume's own grid; prompts and masks are in these pixels.
        content: rows and columns that the slice fills at the top left of the model's square image.
    """

    native: tuple[int, int]
    content: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Masks:
    """Answers to P prompts, M candidates each.

    Attributes:
        logits: float32 ``[P, M, rows, cols]`` on the native slice, above 0 inside.
        quality: float32 ``[P, M]``, the IoU that the model itself expects.
    """

    logits: np.ndarray
    quality: np.ndarray


class SamModel(ABC):
    """A promptable segmentation model with its weights.

    Attributes:
        name: registered name or file.
        digest: of all parameters; part of the signature of embeddings in the bank.
        size: pixels of the square image that it wants; a slice's longer side is scaled to it.
        patch: ``size`` is a multiple of it.
        device: where it computes now.
        dtype: precision of the encoder.
        note: what a reader of its results must know (random weights), or None.
    """

    kind: ClassVar[str]
    """``sam`` or ``sam2``."""
    name: str
    digest: str
    size: int
    patch: int
    device: torch.device
    dtype: torch.dtype
    note: str | None = None

    @abstractmethod
    def encode(self, images: np.ndarray) -> list[Embedding]:
        """Embeddings of slices.

        Args:
            images: float32 ``[B, H, W]`` in [0, 1], H and W at most ``size``; padding to the square is done here.
        """

    @abstractmethod
    def predict(
        self, embedding: Embedding, prompts: Sequence[Prompt], frame: Frame, *, multimask: bool = False
    ) -> Masks:
        """Masks of all objects that are prompted for in one slice.

        Args:
            embedding: of the slice.
            prompts: one per object; they may differ in their number of points.
            frame: how the slice lies in the image.
            multimask: several candidates for each prompt, for prompts that say little; else one.
        """

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Move to another device, in place; float32 on a CPU without bfloat16."""
