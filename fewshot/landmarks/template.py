"""Templates of landmarks: images with named points, drawn as small segments or given as coordinates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from fewshot.errors import FewshotError
from fewshot.volumes import Volume

Point = tuple[float, float, float]
"""RAS+ millimetres; of a picture whose spacing is not known, as its affine places it."""


SAME_PLACE = 1e-3
"""mm; what lies nearer is one place."""


@dataclass(frozen=True)
class Mark:
    """Where somebody marked a landmark.

    Attributes:
        point: its place.
        spread: mm, root mean square distance of what was drawn from that place; 0 for a coordinate.
    """

    point: Point
    spread: float = 0.0


@dataclass(frozen=True, eq=False)
class LandmarkTemplate:
    """An image with its landmarks.

    Attributes:
        volume: the image.
        marks: landmark name -> where it is.
        absent: landmarks that somebody looked for and did not find in this image. What is in neither is unknown.

    Raises:
        FewshotError: without a landmark, with one outside the image, or one that is both there and absent.
    """

    volume: Volume
    marks: Mapping[str, Mark]
    absent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.marks:
            raise FewshotError(f"{self.volume.name} has none of the landmarks; mark at least one in it.")
        for name, mark in self.marks.items():
            if not inside(self.volume, mark.point):
                x, y, z = mark.point
                raise FewshotError(
                    f"Landmark {name} of {self.volume.name} lies outside its image, at {x:g}, {y:g}, {z:g} mm (RAS); "
                    "check whether the file gives RAS or LPS coordinates, and of which image."
                )
        if both := self.absent & set(self.marks):
            raise FewshotError(f"Landmark {min(both)} of {self.volume.name} is marked and said to be absent.")
        if alike := at_one_place(self.marks):
            raise FewshotError(
                f"{self.volume.name} has two landmarks at one place, {alike[0]} and {alike[1]}; "
                "move or remove one of them."
            )

    @classmethod
    def of_labels(
        cls, volume: Volume, labels: np.ndarray, names: Mapping[str, int], *, absent: Collection[str] = ()
    ) -> Self:
        """Small segments as landmarks: the centre of all voxels of a name, however many dots they make up.

        Args:
            volume: the image.
            labels: integer ``[X, Y, Z]`` on its grid.
            names: landmark name -> value in ``labels``; values of other structures are not listed.
            absent: see the class.
        """
        if labels.shape != volume.shape:
            raise FewshotError(
                f"The label of {volume.name} has {labels.shape} voxels, its image {volume.shape}; "
                "mark the landmarks on this image."
            )
        boxes = find_objects(labels.astype(np.int32, copy=False))
        marks = {}
        for name, value in names.items():
            box = boxes[value - 1] if 0 < value <= len(boxes) else None
            if box is not None:
                offset = [of.start for of in box]
                dots = apply_affine(volume.affine, np.argwhere(labels[box] == value) + offset)
                centre = dots.mean(0)
                x, y, z = (float(value) for value in centre)
                spread = float(np.sqrt(((dots - centre) ** 2).sum(1).mean()))
                marks[name] = Mark((x, y, z), spread)
        return cls(volume, marks, frozenset(absent))


def at_one_place(marks: Mapping[str, Mark]) -> tuple[str, str] | None:
    """Two landmarks that lie where only one can, if there are any."""
    names = list(marks)
    pairs = cKDTree([mark.point for mark in marks.values()]).query_pairs(SAME_PLACE) if len(names) > 1 else ()
    return next(((names[first], names[second]) for first, second in sorted(pairs)), None)


def landmark_names(templates: Sequence[LandmarkTemplate]) -> list[str]:
    """All names that some template marks, in order of first appearance."""
    return list(dict.fromkeys(name for template in templates for name in template.marks))


def inside(volume: Volume, point: Sequence[float]) -> bool:
    """Whether a point (RAS+ mm) lies in one of the volume's voxels."""
    voxel = to_voxels(volume, [point])[0]
    return bool(
        np.isfinite(voxel).all() and (voxel >= -0.5).all() and (voxel < np.array(volume.shape) - 0.5).all()
    )


def to_voxels(volume: Volume, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """RAS+ mm ``[N, 3]`` as voxel coordinates ``[N, 3]``; a voxel's centre has whole numbers."""
    return np.asarray(apply_affine(np.linalg.inv(volume.affine), np.asarray(points, np.float64)))
