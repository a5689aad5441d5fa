"""A promptable model that needs no weights: its embedding is the image, its masks are flood fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from skimage.segmentation import flood

from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Embedding, Frame, Masks, SamModel
from fewshot.volumes import SliceSpec, SliceStack, Volume

LOGIT = 5.0


class FakeSam(SamModel):
    """Fills around positive points (or the middle of the box) as far as the intensity is alike.

    Args:
        size, patch: as of a real model.
        tolerance: in intensity, of [0, 1]; with several candidates also a half and twice of it.
        quality: what it says of its masks.
        fits: images or prompts that fit the memory of its "GPU"; None: it is on the CPU.
        answer: replaces the fill: prompt and frame -> bool ``[rows, cols]``.
        note: as of a model with random weights.
    """

    kind = "sam"

    def __init__(
        self,
        *,
        size: int = 64,
        patch: int = 8,
        tolerance: float = 0.15,
        quality: float = 0.9,
        fits: int | None = None,
        answer: Callable[[Prompt, Frame], np.ndarray] | None = None,
        note: str | None = None,
        digest: str = "fake-1",
    ) -> None:
        self.name, self.digest, self.size, self.patch, self.note = "fake", digest, size, patch, note
        self.tolerance, self.quality, self.fits, self.answer = tolerance, quality, fits, answer
        self.device = torch.device("cpu" if fits is None else "cuda")
        self.dtype = torch.float32 if fits is None else torch.bfloat16
        self.encoded: list[int] = []
        """Images of each call of `encode` that succeeded."""
        self.asked: list[tuple[list[Prompt], bool]] = []
        """Prompts and multimask of each call of `predict` that succeeded."""

    def encode(self, images: np.ndarray) -> list[Embedding]:
        assert images.dtype == np.float32
        assert images.ndim == 3
        assert max(images.shape[1:]) <= self.size
        self._fit(len(images))
        self.encoded.append(len(images))
        return [{"image": image.astype(np.float16)} for image in images]

    def predict(
        self, embedding: Embedding, prompts: Sequence[Prompt], frame: Frame, *, multimask: bool = False
    ) -> Masks:
        self._fit(len(prompts))
        self.asked.append((list(prompts), multimask))
        image = on_native(np.asarray(embedding["image"], np.float32), frame)
        factors = (0.5, 1.0, 2.0) if multimask else (1.0,)
        masks = np.stack(
            [np.stack([self._mask(image, prompt, frame, factor) for factor in factors]) for prompt in prompts]
        )
        logits = np.where(masks, LOGIT, -LOGIT).astype(np.float32)
        return Masks(logits, np.full(masks.shape[:2], self.quality, np.float32))

    def to(self, device: torch.device) -> Self:
        self.device = device
        self.dtype = torch.float32
        self.fits = None if device.type == "cpu" else self.fits
        return self

    def _fit(self, count: int) -> None:
        if self.fits is not None and count > self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def _mask(self, image: np.ndarray, prompt: Prompt, frame: Frame, factor: float) -> np.ndarray:
        if self.answer is not None:
            return self.answer(prompt, frame)
        filled = np.zeros(frame.native, bool)
        inside = np.ones(frame.native, bool)
        points = prompt.points[prompt.labels == 1]
        if prompt.box is not None:
            top, left, bottom, right = prompt.box
            rows, cols = np.indices(frame.native)
            inside = (rows >= top) & (rows <= bottom) & (cols >= left) & (cols <= right)
            if not len(points):
                points = np.array([[(top + bottom) / 2, (left + right) / 2]])
        for point in points:
            filled |= flood(image, tuple(np.round(point).astype(int)), tolerance=self.tolerance * factor)
        for point in prompt.points[prompt.labels == 0]:
            filled &= ~flood(image, tuple(np.round(point).astype(int)), tolerance=self.tolerance * factor)
        return filled & inside


def on_native(image: np.ndarray, frame: Frame) -> np.ndarray:
    """The model's image ``[H, W]`` on the native slice, nearest pixel."""
    rows, cols = (
        np.floor((np.arange(native) + 0.5) * content / native).astype(int)
        for native, content in zip(frame.native, frame.content, strict=True)
    )
    return image[np.ix_(rows, cols)]


def discs(
    shape: tuple[int, int, int] = (40, 32, 6), spacing: tuple[float, float, float] = (2.0, 2.0, 6.0)
) -> tuple[Volume, np.ndarray]:
    """A dark body with a bright and a medium cylinder in slices 1 to 4 (of 6), and the cylinders as labels 1 and 2.

    The cylinders are round in millimetres. Axial slices show it as it is stored: row y, column x.
    """
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    x, y = x * spacing[0] / 2, y * spacing[1] / 2
    shown = (z >= 1) & (z <= shape[2] - 2)
    bright = ((x - 10) ** 2 + (y - 12) ** 2 < 36) & shown
    medium = ((x - 27) ** 2 + (y - 18) ** 2 < 49) & shown
    image = np.full(shape, 30.0)
    image[:2], image[:, :2] = 0, 0
    image[bright], image[medium] = 100, 65
    volume = Volume(
        image.astype(np.float32), np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), "MR", "discs"
    )
    return volume, (bright + 2 * medium).astype(np.uint16)


def cut(volume: Volume, plane: str = "axial") -> SliceStack:
    """Its slices as a refiner gets them."""
    return SliceStack(volume, SliceSpec(plane=plane, window="percentile"), patch=1)


def cores(slices: np.ndarray, by: int = 3) -> np.ndarray:
    """Labels ``[S, rows, cols]`` less a rim of so many pixels, as a sharp localisation gives them."""
    from scipy.ndimage import binary_erosion

    eroded = np.zeros_like(slices)
    for label in range(1, int(slices.max()) + 1):
        for index, mask in enumerate(slices == label):
            eroded[index][binary_erosion(mask, iterations=by)] = label
    return eroded
