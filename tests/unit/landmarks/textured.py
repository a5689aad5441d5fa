"""A small textured body, known at every point of space, so that it can be seen in any pose and at any spacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from nibabel.affines import apply_affine

from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.volumes import Volume
from fewshot.volumes.picture import AFFINE as PICTURE

RADII = np.array([34.0, 27.0, 22.0])
"""mm, of the body: it is longer than wide."""
SHAPE, SPACING = (40, 34, 28), (2.0, 2.0, 2.0)
BLOBS = 70
POINTS = {
    "tip": (26.0, 2.0, 3.0),
    "root": (-21.0, 6.0, -2.0),
    "left": (4.0, 18.0, 4.0),
    "right": (2.0, -17.0, -5.0),
    "top": (-4.0, -3.0, 15.0),
    "core": (7.0, 4.0, -9.0),
}
"""Landmarks, mm; each has a blob of its own."""


def _blobs() -> list[tuple[np.ndarray, float, float]]:
    """Centre, deviation in mm and brightness."""
    rng = np.random.default_rng(11)
    ways = rng.standard_normal((BLOBS, 3))
    ways *= (rng.random((BLOBS, 1)) ** (1 / 3)) / np.linalg.norm(ways, axis=1, keepdims=True)
    blobs = [
        (way * RADII * 0.95, float(rng.uniform(2.0, 5.0)), float(rng.choice([-1, 1]) * rng.uniform(40, 90)))
        for way in ways
    ]
    blobs += [
        (np.array(point), 2.0 + 0.3 * number, 80.0 * (-1) ** number)
        for number, point in enumerate(POINTS.values())
    ]
    return [*blobs, (np.array([24.0, 10, 6]), 9.0, 80.0), (np.array([-16.0, -8, -8]), 10.0, -50.0)]


def brightness(points: np.ndarray) -> np.ndarray:
    """At points ``[..., 3]``, mm; 0 outside of the body."""
    inside = 1 / (1 + np.exp((np.sqrt(((points / RADII) ** 2).sum(-1)) - 1) * 25))
    value = np.full(points.shape[:-1], 120.0)
    for centre, deviation, height in _blobs():
        value += height * np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / deviation**2)
    return np.asarray(inside * np.clip(value, 5, None))


def centred(
    shape: Sequence[int],
    spacing: Sequence[float],
    turn: np.ndarray | None = None,
    at: Sequence[float] = (0, 0, 0),
) -> np.ndarray:
    """An affine with the middle of the grid at a point, its axes along the columns of ``turn``."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = np.array(at) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def body(
    pose: np.ndarray | None = None,
    shift: Sequence[float] = (0, 0, 0),
    *,
    shape: Sequence[int] = SHAPE,
    spacing: Sequence[float] = SPACING,
    turn: np.ndarray | None = None,
    at: Sequence[float] = (0, 0, 0),
    noise: float = 1.0,
    seed: int = 0,
    name: str = "body",
) -> Volume:
    """The body, turned by ``pose`` and then shifted in world space, on a grid whose axes are ``turn``.

    What lies at p in the body is shown at ``pose @ p + shift``, mm.
    """
    affine = centred(shape, spacing, turn, at)
    grid = apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))
    image = brightness((grid - np.array(shift)) @ (np.eye(3) if pose is None else pose))
    image += noise * np.random.default_rng(seed).standard_normal(image.shape)
    return Volume(image.astype(np.float32), affine, "MR", name)


def picture(
    angle: float = 0.0,
    shift: Sequence[float] = (0, 0),
    *,
    side: int = 64,
    seed: int = 0,
    name: str = "picture",
) -> tuple[Volume, Mapping[str, tuple[float, float, float]]]:
    """A PNG of the body's middle, one pixel a millimetre, turned by so many degrees; and its landmarks' places."""
    turn = rotation(angle)[:2, :2]
    middle = (side - 1) / 2
    index = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1) - middle
    flat = (index - np.array(shift)) @ turn * (80 / side)
    image = brightness(np.concatenate([flat, np.zeros((side, side, 1))], -1))
    image += np.random.default_rng(seed).standard_normal(image.shape)
    volume = Volume(image[:, :, None].astype(np.float32), PICTURE, "XR", name, calibrated=False)
    pixels = {
        of: turn @ (np.array(point[:2]) * side / 80) + np.array(shift) + middle
        for of, point in POINTS.items()
        if abs(point[2]) < 6
    }
    return volume, {of: tuple(apply_affine(PICTURE, [*pixel, 0.0]).tolist()) for of, pixel in pixels.items()}


def rotation(degrees: float, axis: Sequence[float] = (0, 0, 1)) -> np.ndarray:
    """About an axis ``[3, 3]``."""
    from scipy.spatial.transform import Rotation

    way = np.array(axis, float) / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(np.radians(degrees) * way).as_matrix())


def truth(pose: np.ndarray | None = None, shift: Sequence[float] = (0, 0, 0)) -> dict[str, np.ndarray]:
    """Where the landmarks lie in a body that was turned and shifted, mm."""
    pose = np.eye(3) if pose is None else pose
    return {name: pose @ np.array(point) + np.array(shift) for name, point in POINTS.items()}


def template(
    volume: Volume | None = None, names: Sequence[str] = (), absent: Sequence[str] = ()
) -> LandmarkTemplate:
    """The body in its own pose with its landmarks, or with some of them."""
    marks = {name: Mark(POINTS[name]) for name in names or POINTS}
    return LandmarkTemplate(volume or body(), marks, frozenset(absent))
