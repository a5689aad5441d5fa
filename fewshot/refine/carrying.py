"""A clicked object carried from slice to slice, until it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fewshot.progress import Progress
from fewshot.refine.painting import Painter, Points

FEWEST = 4
"""Pixels of the smallest cross-section."""
SHRINKS, GROWS = 0.35, 2.0
"""Between two slices an area changes by no more than this; beyond, something else has begun."""
OVERLAP = 0.6
"""Share of the smaller of two cross-sections that lies in the other."""


def carry(
    painter: Painter,
    known: Mapping[int, np.ndarray],
    slices: int,
    points_of: Callable[[int], Points],
    shows: Callable[[int], bool],
    progress: Progress,
) -> dict[int, np.ndarray]:
    """The object in all slices, starting from those where it is known.

    A slice between two known ones belongs to the nearer.

    Args:
        painter: segments a slice.
        known: slice -> bool ``[rows, cols]``.
        slices: number of slices of the volume.
        points_of: clicks of a slice.
        shows: whether a slice shows anything.
        progress: told the stage ``clicks`` over slices.
    """
    masks = dict(known)
    anchors = sorted(known)
    for anchor in anchors:
        for step in (1, -1):
            before, index = known[anchor], anchor + step
            while 0 <= index < slices and index not in known and _nearest(index, anchors) == anchor:
                if not shows(index):
                    break
                found = painter.following(index, before, index - step, points_of(index))
                if not goes_on(before, found):
                    break
                masks[index] = before = found
                progress("clicks", len(masks), slices)
                index += step
    return masks


def goes_on(before: np.ndarray, found: np.ndarray) -> bool:
    """Whether a cross-section continues that of the slice beside it."""
    was, area = int(before.sum()), int(found.sum())
    if area < FEWEST or not was or not SHRINKS * was <= area <= GROWS * was:
        return False
    return int((before & found).sum()) >= OVERLAP * min(was, area)


def _nearest(index: int, anchors: list[int]) -> int:
    return min(anchors, key=lambda anchor: abs(anchor - index))
