"""Ask SAM for a label once with guidance, then again with its own answer: mask first, then mask and box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from fewshot.baselines.persam.guidance import guided
from fewshot.baselines.persam.learning import Learned
from fewshot.baselines.persam.target import (
    features_of,
    guidance_map,
    location_prior,
    on_content,
    on_slice,
    similarity,
)
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Embedding, Frame, Masks, SamModel


@dataclass(frozen=True, eq=False)
class Wanted:
    """What to ask for in a slice.

    Attributes:
        prompt: the location prior.
        attention: ``[h * w]`` for the first decoding, as in `guided`; None for none.
        feature: ``[C]`` for the first decoding, as in `guided`; None for none.
        weights: ``[3]`` of SAM's three masks (PerSAM-F); None where SAM gives one mask first.
    """

    prompt: Prompt
    attention: Tensor | None = None
    feature: Tensor | None = None
    weights: np.ndarray | None = None


class Cascade:
    """Finds where to ask, and asks several times.

    Args:
        sam: a model of kind ``sam``; its decoder is changed during the first decoding.
        frame: how slices lie in its image.
        decodings: how often, from 1.
    """

    def __init__(self, sam: SamModel, frame: Frame, decodings: int) -> None:
        self._sam = sam
        self._frame = frame
        self._decodings = decodings
        known: Any = sam  # of kind sam, which has segment_anything's modules inside
        self._transformer = known.network.mask_decoder.transformer

    def look(self, embedding: Embedding, label: Learned, quantile: float | None) -> Wanted | None:
        """What to ask for to find a label in a slice.

        Args:
            quantile: None is returned where even the most similar patch is less similar than all but this share of
                the template's own; without it there is always something to ask for.
        """
        size = self._sam.size
        patches = similarity(features_of(embedding), label.target.direction)
        seen = on_content(patches, self._frame, size)
        if quantile is not None and not label.target.shown_by(seen, quantile):
            return None
        alike = on_slice(patches, self._frame, size)
        if label.weights is not None:
            return Wanted(location_prior(alike, negative=False), weights=label.weights)
        attention = guidance_map(patches, alike, self._frame, size)
        return Wanted(location_prior(alike), attention, label.target.feature)

    def decode(self, embedding: Embedding, wanted: Sequence[Wanted]) -> np.ndarray:
        """Logits float32 ``[len(wanted), rows, cols]`` on the native slice; a mask that became empty stays empty."""
        logits = np.zeros((len(wanted), *self._frame.native), np.float32)
        for index, of in enumerate(wanted):
            logits[index] = self._first(embedding, of)
        for decoding in range(2, self._decodings + 1):
            left = [index for index in range(len(wanted)) if (logits[index] > 0).any()]
            if not left:
                break
            prompts = [
                replace(
                    wanted[index].prompt,
                    mask=logits[index],
                    # PerSAM-F has the box from the second decoding on
                    box=box_of(logits[index] > 0)
                    if decoding > 2 or wanted[index].weights is not None
                    else None,
                )
                for index in left
            ]
            logits[left] = best(self._sam.predict(embedding, prompts, self._frame, multimask=True))
        return logits

    def _first(self, embedding: Embedding, of: Wanted) -> np.ndarray:
        several = of.weights is not None
        with guided(self._transformer, of.attention, of.feature):
            masks = self._sam.predict(embedding, [of.prompt], self._frame, multimask=several)
        if of.weights is None:
            return masks.logits[0, 0]
        return np.tensordot(of.weights, masks.logits[0], 1)


def best(masks: Masks) -> np.ndarray:
    """Of each prompt's candidates the one that the model expects most of, ``[P, rows, cols]``."""
    chosen = masks.quality.argmax(1)
    return masks.logits[np.arange(len(chosen)), chosen]


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """First and last row and column of a mask that is not empty: (row, col, row, col)."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(rows[0]), float(cols[0]), float(rows[-1]), float(cols[-1])
