"""Landmarks as a label map of balls, for viewers that show no points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fewshot.errors import FewshotError
from fewshot.landmarks.result import LandmarkPrediction


def paint_balls(prediction: LandmarkPrediction, radius_mm: float, values: Mapping[str, int]) -> np.ndarray:
    """Paint a ball around every landmark that was found.

    A voxel belongs to the nearest of the landmarks whose balls hold it. The voxel that holds a landmark is always
    painted, however small the balls.

    Args:
        prediction: the landmarks, and the grid of their image.
        radius_mm: of the balls; pixels where nobody knows how large a pixel is.
        values: landmark name -> value from 1 to 65535; landmarks that are not listed are not painted.

    Returns:
        ``[X, Y, Z]`` on the image's grid, uint8, or uint16 if a value above 255 is listed.

    Raises:
        FewshotError: the radius is no length.
    """
    if not (np.isfinite(radius_mm) and radius_mm > 0):
        raise FewshotError(f"Balls cannot have a radius of {radius_mm:g} mm; give one above 0.")
    balls = [
        (*_ball(prediction, point, radius_mm), values[name])
        for name, point in prediction.points.items()
        if name in values
    ]
    labels = np.zeros(prediction.shape, np.uint16 if max(values.values(), default=0) > 255 else np.uint8)
    if not balls:
        return labels
    voxels = np.concatenate([of[0] for of in balls])
    distances = np.concatenate([of[1] for of in balls])
    owners = np.repeat([of[2] for of in balls], [len(of[0]) for of in balls])
    farthest_first = np.argsort(-distances, kind="stable")
    labels.ravel()[voxels[farthest_first]] = owners[farthest_first]  # of several, the last one stays
    return labels


def _ball(
    prediction: LandmarkPrediction, point: tuple[float, float, float], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of a ball's voxels, and their squared distances from its centre, mm²."""
    shape = np.array(prediction.shape)
    steps = prediction.affine[:3, :3]
    centre = np.array(prediction.voxel(point))
    home = np.clip(np.floor(centre + 0.5).astype(int), 0, shape - 1)
    reach = radius * np.linalg.norm(np.linalg.inv(steps), axis=1)  # also where the axes are not square
    low = np.clip(np.ceil(centre - reach).astype(int), 0, home)
    high = np.clip(np.floor(centre + reach).astype(int), home, shape - 1)
    grid = np.stack(
        np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    distances = (((grid - centre) @ steps.T) ** 2).sum(1)
    kept = (distances <= radius**2) | (grid == home).all(1)
    return np.ravel_multi_index(tuple(grid[kept].T), prediction.shape), distances[kept]
