"""Refinement by a random walk: the adapter's probabilities spread along what looks alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from fewshot.progress import Progress, silent
from fewshot.refine.base import Refined, Refiner, Region
from fewshot.refine.graph import walk
from fewshot.settings import number
from fewshot.volumes.volume import spacing_of
from fewshot.volumes.windows import normalise

MARGIN = 0.15
"""Of the box around the labels, looked at beyond it on every side."""
FEWEST_PIXELS, FEWEST_SLICES = 4, 1
"""Least margin in the plane, and across it."""

CERTAIN = 0.99
"""Pixels at least so certain stay as they are, unless they lie near a boundary."""
BAND = 3
"""Pixels on either side of a boundary that may change however certain they are."""

LABELS_AT_ONCE = 4
"""Labels do not depend on each other before they are compared; few at once have little to do with most pixels."""

NOWHERE = 0.02
"""Where some labels are less probable, all around, they stay as improbable as they are."""

LEAST_NOISE = 1e-3
"""Of the window: a drawing without noise has no differences to compare an edge with."""


@dataclass(frozen=True)
class WalkerOptions:
    """How a random walk refines.

    Attributes:
        trust: how much the adapter's probability counts at each pixel, in terms of a neighbour that looks the same;
            the smaller, the farther probabilities spread (about ``trust ** -0.5`` pixels).
        contrast: how fast the tie of two neighbours weakens with the square of their difference, in terms of the
            mean square over all neighbours.
        across: let probabilities also spread from slice to slice, less so the farther slices are apart.
    """

    trust: float = number(0.15, above=1e-3, below=100)
    contrast: float = number(1.0, above=1e-3, below=100)
    across: bool = True


class WalkerRefiner(Refiner):
    """A random walk with the adapter's probabilities as priors; see `fewshot.refine.graph`.

    Args:
        options: see `WalkerOptions`.
    """

    name: ClassVar[str] = "walker"
    description: ClassVar[str] = "random walker; needs no weights"
    Options: ClassVar[type[Any]] = WalkerOptions

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:  # noqa: ARG002
        box = _box(region.classes)
        if box is None:
            return Refined(region.classes, region.probabilities, {"pixels": 0})
        progress("refine", 0, len(region.classes))
        stack = region.stack
        spacing = spacing_of(stack.affine)
        image = normalise(stack.slices(stack.volume.array)[box], stack.limits)
        prior = _prior(region, box)
        where = _doubtful(region.classes[box], prior)
        found = _walk_all(
            (image / _typical_difference(image))[None],
            prior,
            np.full(image.shape, self.options.trust, np.float32),
            where,
            spacing=spacing if self.options.across else (np.inf, *spacing[1:]),
            contrast=self.options.contrast,
        )
        classes = region.classes.astype(np.uint16)
        classes[box] = found.argmax(axis=-1)
        probabilities = np.zeros((*classes.shape, prior.shape[-1]), np.float16)
        probabilities[..., 0] = 1
        if region.probabilities is not None:
            probabilities[:] = region.probabilities
        probabilities[box] = found
        progress("refine", len(classes), len(classes))
        changed = int(np.count_nonzero(classes != region.classes))
        provenance = {**asdict(self.options), "pixels": int(where.sum()), "changed": changed}
        return Refined(classes, probabilities, provenance)


def _box(classes: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box around all labels, with a margin; None without any."""
    found = ndimage.find_objects((classes > 0).astype(np.int8))
    if not found:
        return None
    sides = []
    for side, least in zip(found[0], (FEWEST_SLICES, FEWEST_PIXELS, FEWEST_PIXELS), strict=True):
        margin = max(least, round(MARGIN * (side.stop - side.start)))
        sides.append(slice(max(0, side.start - margin), side.stop + margin))
    return sides[0], sides[1], sides[2]


def _prior(region: Region, box: tuple[slice, slice, slice]) -> np.ndarray:
    """The probabilities in a box, float32 ``[s, r, c, L + 1]``; what was dropped as a stray component is background."""
    classes = region.classes[box]
    certain = np.eye(len(region.names) + 1, dtype=np.float32)
    if region.probabilities is None:
        return certain[classes]
    prior = region.probabilities[box].astype(np.float32)
    dropped = prior.argmax(axis=-1) != classes
    prior[dropped] = certain[classes[dropped]]
    return prior / np.maximum(prior.sum(axis=-1, keepdims=True), np.float32(1e-6))


def _doubtful(classes: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Pixels that may change, bool ``[s, r, c]``."""
    size = (1, 2 * BAND + 1, 2 * BAND + 1)
    near = ndimage.maximum_filter(classes, size) != ndimage.minimum_filter(classes, size)
    flat = ndimage.maximum_filter(classes, (3, 1, 1)) != ndimage.minimum_filter(classes, (3, 1, 1))
    return near | flat | (prior.max(axis=-1) < CERTAIN)


def _typical_difference(image: np.ndarray) -> np.float32:
    """Root mean square difference of neighbours in the plane."""
    squares = [float(np.mean(np.diff(image, axis=axis) ** 2)) for axis in (1, 2) if image.shape[axis] > 1]
    return np.float32(max(LEAST_NOISE, np.sqrt(np.mean(squares)) if squares else 0))


def _walk_all(
    channels: np.ndarray, prior: np.ndarray, weight: np.ndarray, where: np.ndarray, **how: Any
) -> np.ndarray:
    """`walk` for any number of labels within bounded memory."""
    result = np.empty_like(prior)
    for first in range(0, prior.shape[-1], LABELS_AT_ONCE):
        some = slice(first, first + LABELS_AT_ONCE)
        reach = ndimage.maximum_filter(prior[..., some].max(axis=-1), (3, 4 * BAND + 1, 4 * BAND + 1))
        result[..., some] = walk(channels, prior[..., some], weight, where=where & (reach > NOWHERE), **how)
    result /= np.maximum(result.sum(axis=-1, keepdims=True), np.float32(1e-6))
    return result
