"""Carry a template's landmarks over to a query by registration.

Places here are millimetres along the voxel axes of an image, ``voxel * spacing``: they need no orientation, so that
pictures, which have none, are like volumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from fewshot.atlas import Registered

NEIGHBOURS = 40
"""Grid points from which the map around a landmark is estimated: an affine map in 3D has 12 unknowns."""
BEYOND = 0.5
"""A landmark that comes to lie farther than so many grid cells outside of the query is not carried."""
FAR = 4.0
"""Nor one that is so many cells from the nearest grid point; the map is continued only so far beyond its region."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Where registration puts one landmark of a template.

    Attributes:
        place: mm along the query's voxel axes ``[3]``.
        matrix: ``[3, 3]``, steps in the query -> steps in the template, mm along the voxel axes of each.
    """

    place: np.ndarray
    matrix: np.ndarray


def carry(
    points: np.ndarray,
    of: Registered,
    *,
    template: tuple[np.ndarray, np.ndarray],
    query: tuple[np.ndarray, np.ndarray],
) -> list[Carried | None]:
    """Landmarks of a template in a query.

    Args:
        points: mm along the template's voxel axes ``[N, 3]``.
        of: how the template lies in the query.
        template: its shape and spacing, ``[3]`` each.
        query: likewise.

    Returns:
        For each landmark where it comes to lie; None where the query does not show that part of the template.
    """
    shape, spacing = query
    sides = np.array(of.places.shape[:3])
    ratio = (of.high - of.low) / sides
    axes = [
        (np.arange(side) + 0.5) * step + first - 0.5
        for side, step, first in zip(sides, ratio, of.low, strict=True)
    ]
    here = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) * spacing
    there = (of.places.reshape(-1, 3) * template[0] - 0.5) * template[1]
    flat = sides < 2  # a picture: nothing is known, and nothing moves, along this axis
    cells = _cells(there.reshape(*sides, 3), ~flat)
    if abs(np.linalg.det(cells)) < 1e-6:
        return [None] * len(points)
    # in grid cells, not mm: slices may be much farther apart than pixels, and one of them determines no map
    tree = cKDTree(there[:, ~flat] @ np.linalg.inv(cells).T)
    distances, indices = tree.query(
        points[:, ~flat] @ np.linalg.inv(cells).T, k=range(1, min(NEIGHBOURS, len(there)) + 1)
    )
    carried = [
        _around(point, here[near], there[near], distance, flat) if distance[0] <= FAR else None
        for point, distance, near in zip(points, distances, indices, strict=True)
    ]
    first, last = (-0.5 - BEYOND * ratio) * spacing, (shape - 0.5 + BEYOND * ratio) * spacing
    return [
        each if each and ((first <= each.place) & (each.place <= last))[~flat].all() else None
        for each in carried
    ]


def _cells(there: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The steps of a grid ``[x, y, z, 3]`` as columns, mm in the template: the median along each axis."""
    axes = np.flatnonzero(kept)
    steps = [np.median(np.diff(there[..., kept], axis=axis).reshape(-1, len(axes)), axis=0) for axis in axes]
    return np.stack(steps, axis=1)


def _around(
    point: np.ndarray, here: np.ndarray, there: np.ndarray, distance: np.ndarray, flat: np.ndarray
) -> Carried | None:
    """The affine map of the nearest grid points, nearer ones counting more, solved for the landmark."""
    kept = ~flat
    offset = there[:, kept] - point[kept]
    weights = np.exp(-0.5 * distance**2 / max(float(np.median(distance**2)), 1e-9))
    root = np.sqrt(weights)[:, None]
    middle = here.mean(0)
    ones = np.ones((len(here), 1))
    solution, *_ = np.linalg.lstsq(
        root * np.hstack([here[:, kept] - middle[kept], ones]), root * offset, rcond=None
    )
    matrix = np.eye(3)
    matrix[np.ix_(kept, kept)] = solution[:-1].T
    if abs(np.linalg.det(matrix)) < 1e-3:
        return None
    place = middle.copy()
    place[kept] -= np.linalg.solve(matrix[np.ix_(kept, kept)], solution[-1])
    return Carried(place, matrix)
