"""Connected components: what keeps the structure and drops stray pixels (paper, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cc3d
import numpy as np
from scipy.ndimage import find_objects

COVERED_SHARE = 0.9
"""A label's template counts as n parts if its n largest components hold this share of its voxels."""

MAX_PARTS = 8
"""More parts than this are taken as scattered: then every component above the minimum volume is kept."""

CONNECTIVITY: Literal[26] = 26


def count_parts(mask: np.ndarray) -> int:
    """How many components make up a structure, small splinters not counted; 0 for an empty mask.

    Args:
        mask: bool ``[X, Y, Z]``.
    """
    if not mask.any():
        return 0
    sizes = np.sort(component_sizes(mask)[1])[::-1]
    return int(np.searchsorted(np.cumsum(sizes), COVERED_SHARE * sizes.sum()) + 1)


def component_sizes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components of a mask ``[X, Y, Z]``: their label map (1..n) and their voxel counts ``[n]``."""
    components: np.ndarray = cc3d.connected_components(mask, connectivity=CONNECTIVITY)
    return components, np.bincount(components.ravel())[1:]


def keep_components(
    labels: np.ndarray, parts: Sequence[int | None], *, voxel_ml: float, min_ml: float = 0.0
) -> np.ndarray:
    """Drop stray components of every label.

    Args:
        labels: integer ``[X, Y, Z]``, 0 background, k the k-th label.
        parts: for each label how many of its largest components stay; None keeps all.
        voxel_ml: volume of a voxel in millilitres.
        min_ml: components smaller than this go in any case.

    Returns:
        A copy of ``labels`` with zeros where components were dropped.
    """
    cleaned = labels.copy()
    boxes = _bounding_boxes(labels, len(parts))
    for label, count in enumerate(parts, start=1):
        if (box := boxes[label - 1]) is None:
            continue
        region = cleaned[box]  # a view: components of one label are sought in its bounding box only
        components, sizes = component_sizes(region == label)
        order = np.argsort(-sizes, kind="stable")
        kept = [index for index in order[:count] if sizes[index] * voxel_ml >= min_ml]
        stays = np.zeros(len(sizes) + 1, bool)
        stays[np.array(kept, int) + 1] = True
        region[(region == label) & ~stays[components]] = 0
    return cleaned


def _bounding_boxes(labels: np.ndarray, count: int) -> list[tuple[slice, ...] | None]:
    """The box of each label 1..count, None where it does not occur."""
    return list(find_objects(labels.astype(np.int32), max_label=count))
