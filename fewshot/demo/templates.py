"""Label maps on their way between a person's drawing and the server."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from fewshot.errors import FewshotError
from fewshot.landmarks.template import Point

SUFFIX = " landmark"
"""Ends the name of a segment that marks a point: the server tells landmarks from organs by it."""


def partial_template(
    labels: np.ndarray, names: Mapping[str, int], *, slices: int = 6, axis: int = 2
) -> tuple[np.ndarray, list[int]]:
    """Keep the labels of a few slices only, as a person does who has no time for a whole volume.

    The slices are evenly spread, so that the surroundings of the labels are seen everywhere too; they begin
    where the label that is shown least is shown most.

    Args:
        labels: the whole truth, [X, Y, Z].
        names: label name -> value in `labels`.
        slices: how many slices to keep.
        axis: the array axis along which the slices lie.

    Raises:
        FewshotError: no such choice shows every label.

    Returns:
        The partial label map on the same grid, with all other slices empty, and the slices kept.
    """
    planes = np.moveaxis(labels, axis, 0)
    area = np.stack([(planes == value).sum(axis=(1, 2)) for value in names.values()], axis=1)  # [S, L] voxels
    held = np.flatnonzero(area.any(axis=1))
    first, extent = (held[0], held[-1] + 1 - held[0]) if held.size else (0, 0)
    choices = [first + (np.arange(slices) * extent + shift) // slices for shift in range(extent)]
    share = area / np.maximum(area.max(axis=0), 1)
    shown = [float(share[choice].sum(axis=0).min()) for choice in choices]
    if not any(shown):
        raise FewshotError(
            f"No {slices} slices of this study show all of {', '.join(names)}: label more slices, or another study."
        )
    chosen = choices[int(np.argmax(shown))]
    kept = np.zeros_like(planes)
    kept[chosen] = planes[chosen]
    return np.moveaxis(kept, 0, axis), chosen.tolist()


def as_submitted(labels: np.ndarray, names: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Number the labels 1, 2, ... in the order of their names, as 3D Slicer sends its segments.

    Returns:
        The renumbered label map, and the names in the order of their numbers.
    """
    sent = np.zeros_like(labels)
    for number, value in enumerate(names.values(), start=1):
        sent[labels == value] = number
    return sent, list(names)


def with_dots(
    labels: np.ndarray, names: list[str], points: Mapping[str, Point], affine: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Add a segment for each point to a label map as it is sent: a dot, as Slicer's round brush leaves it.

    A dot lies on top of what was drawn before, and takes the voxels whose centres are at most the longest side of a
    voxel away: some pixels wide, on one to three slices.

    Args:
        labels: values 1, 2, ... stand for `names` in this order.
        names: the segments that there are.
        points: landmark name -> its place, RAS mm.
        affine: of the image, voxel index -> RAS mm.

    Returns:
        The label map with dots, and the names with those of the landmarks, each with `SUFFIX`.
    """
    sent = labels.copy()
    places = apply_affine(affine, np.moveaxis(np.indices(labels.shape), 0, -1))
    radius = voxel_sizes(affine).max()
    for number, point in enumerate(points.values(), start=len(names) + 1):
        sent[np.linalg.norm(places - point, axis=-1) <= radius] = number
    return sent, [*names, *(f"{name}{SUFFIX}" for name in points)]


def as_known(labels: np.ndarray, received: Mapping[str, int], names: Mapping[str, int]) -> np.ndarray:
    """Give a result's voxels the values of our own names; names that we do not know become background."""
    known = np.zeros(labels.shape, dtype=np.uint16)
    for name, value in received.items():
        if name in names:
            known[labels == value] = names[name]
    return known
