"""How one slice of a clicked object is segmented: by growing, or by a Segment Anything model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from fewshot.refine.acceptance import attached
from fewshot.refine.click_features import SliceFeatures
from fewshot.refine.encoding import Embeddings
from fewshot.refine.grow import Look, grow, likely
from fewshot.refine.prompt import BACKGROUND, FOREGROUND, Prompt
from fewshot.refine.sam.model import SamModel
from fewshot.volumes.resizing import resize

SWALLOWS = 0.6
"""Of the slice: a candidate that covers more is not what a single click meant, if there is another."""
UNSURE = 0.3
"""Quality (expected IoU) below which a model has lost the object."""
LOGIT = 8.0
"""Of a pixel inside a rough mask that is prompted with."""


@dataclass(frozen=True, eq=False)
class Points:
    """Clicks of one slice, float ``[N, 2]``, (row, col) in native pixels."""

    foreground: np.ndarray
    background: np.ndarray


class Painter(ABC):
    """Segments slices, each bool ``[rows, cols]`` on the native grid."""

    how: ClassVar[str]

    @abstractmethod
    def first(self, index: int, points: Points) -> np.ndarray:
        """The object in a slice with foreground clicks."""

    @abstractmethod
    def following(self, index: int, before: np.ndarray, beside: int, points: Points) -> np.ndarray:
        """The object in a slice next to slice ``beside``, where it is ``before``; empty if it has ended."""


class GrowingPainter(Painter):
    """Without a promptable model: grey values and the backbone's features (`fewshot.refine.grow`)."""

    how = "walker"

    def __init__(self, features: SliceFeatures) -> None:
        self._features, self._stack = features, features.stack
        self._looks: dict[int, Look] = {}

    def first(self, index: int, points: Points) -> np.ndarray:
        look = self._look(index)
        inside = grow(look, self._pixels(points.foreground), self._pixels(points.background))
        mask = self._native(inside)
        for row, col in points.foreground.astype(
            int
        ):  # a structure may be smaller than a pixel of the features
            mask[row, col] = True
        return attached(mask, _at(points.foreground, mask.shape))

    def following(self, index: int, before: np.ndarray, beside: int, points: Points) -> np.ndarray:
        content = resize(before[None], self._stack.content)[0] > 0.5
        if not content.any():
            return np.zeros_like(before)
        mask = self._native(likely(self._look(index), self._look(beside), content)) & ~_at(
            points.background, before.shape
        )
        if len(points.background) and mask.any():
            inner = _middle(mask, points.background)
            mask &= self._native(
                grow(self._look(index), self._pixels(inner), self._pixels(points.background))
            )
        return attached(mask, mask & before)

    def _look(self, index: int) -> Look:
        if index not in self._looks:
            rows, cols = self._stack.content
            image = self._stack.render([index])[0, :rows, :cols]
            self._looks[index] = Look.of(image, self._features.of_slice(index), self._stack.patch)
        return self._looks[index]

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        """Native positions as pixels of the images."""
        scale = np.divide(self._stack.content, self._stack.native)
        return np.clip((points + 0.5) * scale - 0.5, 0, np.subtract(self._stack.content, 1))

    def _native(self, inside: np.ndarray) -> np.ndarray:
        return resize(inside[None], self._stack.native)[0] > 0.5


class SamPainter(Painter):
    """With a Segment Anything model."""

    how = "sam"

    def __init__(self, embeddings: Embeddings, sam: SamModel) -> None:
        self._embeddings, self._sam = embeddings, sam

    def first(self, index: int, points: Points) -> np.ndarray:
        mask, _ = self._ask(
            index, _prompt(points), alone=len(points.foreground) + len(points.background) == 1
        )
        return attached(mask, _at(points.foreground, mask.shape) & mask)

    def following(self, index: int, before: np.ndarray, beside: int, points: Points) -> np.ndarray:  # noqa: ARG002
        inner = Points(
            np.concatenate([_middle(before, points.background), points.foreground]), points.background
        )
        rough = np.where(before, LOGIT, -LOGIT).astype(np.float32)
        mask, quality = self._ask(index, _prompt(inner, rough), alone=False)
        return attached(mask, mask & before) if quality >= UNSURE else np.zeros_like(before)

    def _ask(self, index: int, prompt: Prompt, *, alone: bool) -> tuple[np.ndarray, float]:
        """The best candidate, and the quality that the model expects of it."""
        found = self._sam.predict(
            self._embeddings.of_slice(index), [prompt], self._embeddings.frame, multimask=alone
        )
        masks, quality = found.logits[0] > 0, found.quality[0]
        worth = quality - 10 * (masks.mean(axis=(1, 2)) > SWALLOWS) - 10 * ~masks.any(axis=(1, 2))
        best = int(worth.argmax())
        return masks[best], float(quality[best])


def _prompt(points: Points, mask: np.ndarray | None = None) -> Prompt:
    labels = [FOREGROUND] * len(points.foreground) + [BACKGROUND] * len(points.background)
    return Prompt(np.concatenate([points.foreground, points.background]), np.array(labels), mask=mask)


def _at(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(points.astype(int).T)] = True
    return mask


def _middle(mask: np.ndarray, away_from: np.ndarray) -> np.ndarray:
    """The pixel deepest inside a mask and not near some points, float ``[1, 2]``."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    if len(away_from):
        depth = np.minimum(depth, ndimage.distance_transform_edt(~_at(away_from, mask.shape)) * mask)
    return np.array([np.unravel_index(int(depth.argmax()), mask.shape)], float)
