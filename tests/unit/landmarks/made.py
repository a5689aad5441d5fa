"""Volumes and predictions without voxels that matter."""

from __future__ import annotations

import numpy as np

from fewshot.landmarks import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.volumes import Volume
from fewshot.volumes.picture import AFFINE as PICTURE

ANGLE = np.radians(20)
OBLIQUE = np.array(
    [
        [1.5 * np.cos(ANGLE), -2.0 * np.sin(ANGLE), 0, -30],
        [1.5 * np.sin(ANGLE), 2.0 * np.cos(ANGLE), 0, 12],
        [0, 0, 3.0, -5],
        [0, 0, 0, 1],
    ]
)
SHAPE = (20, 16, 12)


def volume(affine: np.ndarray = OBLIQUE, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """An image of zeros."""
    return Volume(np.zeros(shape, np.float32), affine, name="scan")


def picture() -> Volume:
    """A PNG of 30 columns and 20 rows."""
    return Volume(np.zeros((30, 20, 1), np.float32), PICTURE, name="xray", calibrated=False)


def at(of: Volume, *voxel: float) -> tuple[float, float, float]:
    """A voxel's place, RAS+ mm."""
    x, y, z = (of.affine @ [*voxel, 1.0])[:3].tolist()
    return x, y, z


def prediction(of: Volume, **points: tuple[float, float, float] | None) -> LandmarkPrediction:
    """Landmarks by name; None was not found."""
    landmarks = {
        name: FoundLandmark(name, False, 0.2, reason="nothing looks like it")
        if point is None
        else FoundLandmark(name, True, 0.875, (Candidate(point, 0.875),))
        for name, point in points.items()
    }
    return LandmarkPrediction(landmarks, of.affine, of.shape, of.calibrated)
