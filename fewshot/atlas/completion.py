"""What a template that is labelled on a few slices says about the slices between and beyond them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import distance_transform_edt, shift

BEYOND = 0.5
"""Probability next to the outermost labelled slice: the structure may end there or go on."""


def complete(mask: np.ndarray, labelled: np.ndarray, *, reach: float) -> np.ndarray:
    """Probability that a label covers each pixel, from the slices that were labelled.

    Between two labelled slices the outline is interpolated by its signed distance, from centre to centre (after the
    shape-based interpolation of Raya and Udupa 1990). Beyond the outermost ones it is repeated with a probability
    that begins at ``BEYOND`` and fades.

    Args:
        mask: bool ``[S, rows, cols]``, true where the label is drawn.
        labelled: bool ``[S]``, slices on which it would have been drawn if it were there.
        reach: slices over which the probability beyond the outermost labelled slices falls to 1 / e.

    Returns:
        float32 ``[S, rows, cols]``.
    """
    known = np.flatnonzero(labelled)
    result = mask.astype(np.float32)
    if len(known) in (0, len(mask)):
        return result
    for first, last in pairwise(known):
        if last > first + 1 and (mask[first].any() or mask[last].any()):
            ends = signed_distance(mask[first]), signed_distance(mask[last])
            # a structure that runs obliquely has moved: its outlines are laid on each other before they are mixed
            way = _centre(mask[last], mask[first]) - _centre(mask[first], mask[last])
            for index in range(first + 1, last):
                share = (index - first) / (last - first)
                early = shift(ends[0], share * way, order=1, mode="nearest")
                late = shift(ends[1], (share - 1) * way, order=1, mode="nearest")
                result[index] = (1 - share) * early + share * late > 0
    for index in range(known[0]):
        result[index] = mask[known[0]] * BEYOND * np.exp(-(known[0] - index - 1) / reach)
    for index in range(known[-1] + 1, len(mask)):
        result[index] = mask[known[-1]] * BEYOND * np.exp(-(index - known[-1] - 1) / reach)
    return result


def _centre(mask: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean row and column of a mask, of another one where it is empty."""
    return np.argwhere(mask if mask.any() else otherwise).mean(0)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the outline, positive inside; everywhere far outside for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, -float(max(mask.shape)) / 8)
    padded = np.pad(mask, 1)
    inside = distance_transform_edt(padded)[1:-1, 1:-1]
    return np.asarray(inside - distance_transform_edt(~mask))
