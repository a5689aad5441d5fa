"""Studies on which landmarks are marked: the middles of the two balls of `blobs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.unit.conftest import blobs

VOLUME, LABELS = blobs(0)
CENTRES = {"bright middle": (12, 14, 4), "dark middle": (28, 20, 3)}
"""Voxels of the study a."""


def dots(places: Mapping[int, tuple[int, int, int]], *, reach: int = 1) -> np.ndarray:
    """A label map with a square of pixels around each place, on one slice."""
    drawn = np.zeros(LABELS.shape, np.uint8)
    for value, (x, y, z) in places.items():
        drawn[x - reach : x + reach + 1, y - reach : y + reach + 1, z] = value
    return drawn


BOTH = dots(dict(enumerate(CENTRES.values(), start=1)))
"""Both middles, values 1 and 2 in the order of `CENTRES`."""


def millimetres(voxel: tuple[float, float, float]) -> list[float]:
    """RAS of a voxel of the studies."""
    return (VOLUME.affine @ [*voxel, 1])[:3].tolist()


def write_points(studies: Path, file: str, points: object) -> Path:
    """A file in `landmarks`."""
    path = studies / "landmarks" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(points if isinstance(points, str) else json.dumps(points))
    return path
