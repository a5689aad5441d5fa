"""A template's map on a query's grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import find_objects, map_coordinates

from fewshot.atlas.prior import Box
from fewshot.atlas.registration import Registered

BLOCK = 1 << 21
"""Voxels that are moved at once: their positions take six times the memory of their values."""


def moved(
    blurred: tuple[np.ndarray, np.ndarray], sides: Sequence[int], of: Registered
) -> tuple[Box, np.ndarray] | None:
    """A template's map on a query's grid.

    Args:
        blurred: first voxel ``[3]`` in the template, and values of its box.
        sides: the template's shape.
        of: how the template lies in the query.

    Returns:
        A box of the query and float32 values there; None where the map does not come to lie in it.
    """
    first, values = blurred
    extent = np.array(sides, np.float32)
    index = of.places * extent - 0.5 - first.astype(np.float32)
    reach = of.steps * extent  # a label smaller than the grid's cells may lie between its points
    inside = ((index + reach > -1) & (index - reach < values.shape)).all(-1)
    box = next(iter(find_objects(inside.astype(np.int8))), None)
    if box is None:
        return None
    shape = of.high - of.low
    ratio = shape / np.array(of.places.shape[:3])
    low = np.maximum([np.floor((part.start - 1) * r) for part, r in zip(box, ratio, strict=True)], 0).astype(
        int
    )
    high = np.minimum(
        [np.ceil((part.stop + 1) * r) for part, r in zip(box, ratio, strict=True)], shape
    ).astype(int)
    axes = [(np.arange(a, b) + 0.5) / r - 0.5 for a, b, r in zip(low, high, ratio, strict=True)]
    out = np.empty(high - low, np.float32)
    rows = max(1, BLOCK // out[0].size)
    for start in range(0, len(out), rows):
        part = slice(start, start + rows)
        fine = np.moveaxis(interpolated(index, [axes[0][part], *axes[1:]]), -1, 0)
        map_coordinates(values, fine, out[part], order=1, mode="grid-constant", prefilter=False)
    low, high = low + of.low, high + of.low
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), out


def interpolated(grid: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
    """Values ``[x, y, z, C]`` at the crossings of positions along each axis, linearly, the outer ones extended."""
    result = grid
    for axis, positions in enumerate(axes):
        last = result.shape[axis] - 1
        below = np.clip(np.floor(positions), 0, max(last - 1, 0)).astype(int)
        above = np.minimum(below + 1, last)
        share = (
            (positions - below).astype(np.float32).reshape([-1 if axis == i else 1 for i in range(grid.ndim)])
        )
        result = result.take(below, axis) * (1 - share) + result.take(above, axis) * share
    return result
