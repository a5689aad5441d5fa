"""What a template looks like around its landmarks, on a grid finer than any patch of the backbone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from skimage.feature import match_template

RADIUS = 5
"""Half the side of what is compared, in steps."""
SEARCH = 5
"""How far around the expected place it is sought, in steps."""
SCALES = (2.0, 1.0)
"""Steps in terms of the finest, coarse to fine."""
HALF = 11
"""Half the side of what is kept of a template: a turned cube of `RADIUS`, or `RADIUS` and `SEARCH` together."""
LEAST_CONTRAST = 1e-3


@dataclass(frozen=True, eq=False)
class Textures:
    """The surroundings of a template's landmarks.

    Attributes:
        cubes: uint8 ``[scales, N, n, n, n]`` (``[..., n, n, 1]`` of a picture), window limits at 0 and 255.
        step: mm of the finest scale.
    """

    cubes: np.ndarray
    step: float

    @classmethod
    def around(cls, image: np.ndarray, spacing: np.ndarray, points: np.ndarray, step: float) -> Textures:
        """Cut them out.

        Args:
            image: ``[X, Y, Z]`` in [0, 1].
            spacing: mm ``[3]``.
            points: mm along the voxel axes ``[N, 3]``.
            step: see the class.
        """
        flat = image.shape[2] == 1
        cubes = [
            [sampled(image, spacing, point + offsets(HALF, step * scale, flat=flat)) for point in points]
            for scale in SCALES
        ]
        return cls(np.round(np.array(cubes) * 255).astype(np.uint8), step)

    def seen(self, scale: int, index: int, matrix: np.ndarray, radius: int) -> np.ndarray:
        """What lies around a landmark, along the axes of a query.

        Args:
            scale: index into `SCALES`.
            index: the landmark.
            matrix: ``[3, 3]``, steps in the query -> steps in the template.
            radius: half the side of the result, in steps.
        """
        cube = self.cubes[scale, index].astype(np.float32) / 255
        flat = cube.shape[2] == 1
        moved = offsets(radius, 1.0, flat=flat) @ matrix.T
        centre = (np.array(cube.shape) - 1) / 2
        return map_coordinates(
            cube, np.moveaxis(moved + centre, -1, 0), order=1, mode="nearest", prefilter=False
        )


def offsets(half: int, step: float, *, flat: bool) -> np.ndarray:
    """A grid around 0, mm ``[n, n, n, 3]`` with n = 2 half + 1; of a picture ``[n, n, 1, 3]``."""
    axis = np.arange(-half, half + 1) * step
    return np.stack(np.meshgrid(axis, axis, np.zeros(1) if flat else axis, indexing="ij"), axis=-1)


def sampled(image: np.ndarray, spacing: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values of an image ``[X, Y, Z]`` at places in mm along its voxel axes ``[..., 3]``, linearly; black outside."""
    index = np.moveaxis(places / spacing, -1, 0)
    return np.asarray(map_coordinates(image, index, order=1, mode="constant", prefilter=False))


def likeness(region: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of a pattern at every place of a region where it fits wholly, -1 to 1."""
    if float(pattern.std()) < LEAST_CONTRAST or float(region.std()) < LEAST_CONTRAST:
        return np.zeros([a - b + 1 for a, b in zip(region.shape, pattern.shape, strict=True)], np.float32)
    if region.shape[2] == 1:
        return np.asarray(match_template(region[..., 0], pattern[..., 0]))[..., None]
    return np.asarray(match_template(region, pattern))
