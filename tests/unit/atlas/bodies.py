"""A small body whose organs are known at every point of space, so that any map of it can be sampled exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot.atlas import Atlas, AtlasTemplate
from fewshot.volumes import SliceSpec, SliceStack, Volume

ORGANS = 3
SPEC = SliceSpec(plane="axial", window="percentile", size=32)
SPACING = (3.0, 3.0, 3.0)
SHAPE = (34, 30, 24)


def scene(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and label (0 to `ORGANS`) at points ``[..., 3]`` in mm."""

    def ball(centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
        return (((points - centre) / radii) ** 2).sum(-1) < 1

    image, labels = np.zeros(points.shape[:-1]), np.zeros(points.shape[:-1], np.uint16)
    for centre, radii, brightness, label in (
        ((0, 0, 0), (46, 38, 90), 100, 0),
        ((19, 4, 4), (14, 16, 13), 160, 1),
        ((-20, 8, -6), (11, 12, 12), 40, 2),
        ((0, -22, 0), (9, 8, 90), 200, 0),
        ((-4, 16, 14), (8, 7, 7), 150, 3),
    ):
        inside = ball(centre, radii)
        image[inside], labels[inside] = brightness, label
    return image, labels


def moved_points(points: np.ndarray, matrix: np.ndarray, shift: Sequence[float], warp: float) -> np.ndarray:
    """An affine map and a smooth wave of so many mm."""
    wave = np.sin(points[..., [1, 2, 0]] / 14) * warp
    return points @ matrix.T + np.asarray(shift, float) + wave


def grid_points(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """RAS mm of every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def centred(shape: Sequence[int], spacing: Sequence[float], turn: np.ndarray | None = None) -> np.ndarray:
    """An affine with the middle of the grid at the origin, its axes along the columns of ``turn``."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def study(
    name: str = "body",
    *,
    shape: Sequence[int] = SHAPE,
    spacing: Sequence[float] = SPACING,
    turn: np.ndarray | None = None,
    matrix: np.ndarray | None = None,
    shift: Sequence[float] = (0, 0, 0),
    warp: float = 0.0,
    noise: float = 3.0,
    seed: int = 0,
) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A volume, its labels, and for every voxel the point of `scene` that it shows ``[X, Y, Z, 3]``."""
    affine = centred(shape, spacing, turn)
    points = moved_points(grid_points(shape, affine), np.eye(3) if matrix is None else matrix, shift, warp)
    image, labels = scene(points)
    image = image + noise * np.random.default_rng(seed).standard_normal(image.shape)
    return Volume(image.astype(np.float32), affine, "MR", name), labels, points


def rotation(degrees: float) -> np.ndarray:
    """About the z axis."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def other_patient(**changes: object) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Another patient: larger, turned, shifted and bent."""
    matrix = rotation(6) @ np.diag([0.9, 0.93, 0.95])
    return study(
        **({"name": "other", "matrix": matrix, "shift": (4, -4, 3), "warp": 2.0, "seed": 1} | changes)
    )  # type: ignore[arg-type]


def template(
    volume: Volume,
    classes: np.ndarray,
    *,
    labelled: np.ndarray | None = None,
    drawn: Sequence[bool] | None = None,
    labels: int = ORGANS,
) -> AtlasTemplate:
    """An axial template, wholly labelled unless told."""
    axis = SliceStack(volume, SPEC, patch=8).axis
    return AtlasTemplate.of(
        volume,
        classes,
        window=SPEC.window,
        axis=axis,
        labelled=np.ones(volume.shape[axis], bool) if labelled is None else labelled,
        drawn=[True] * labels if drawn is None else drawn,
    )


def atlas_of(volume: Volume, classes: np.ndarray) -> Atlas:
    """Of one complete template."""
    return Atlas([template(volume, classes)], SPEC.window)


def stack_of(volume: Volume) -> SliceStack:
    """Its axial slices."""
    return SliceStack(volume, SPEC, patch=8)


def dense(prior: object, stack: SliceStack) -> np.ndarray:
    """A prior at every voxel, ``[X, Y, Z, L + 1]``."""
    slices = np.stack([prior.of_slice(index) for index in range(len(stack))])  # type: ignore[attr-defined]
    return np.stack([stack.restore(slices[..., k]) for k in range(slices.shape[-1])], axis=-1)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
