"""How a template may be turned in a query: all rotations, tried at a very coarse resolution.

Registration climbs from where it begins, and reaches some 30 degrees at most. Patients lie in a scanner in few ways;
specimens and animals lie as they fell.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - what everybody calls it
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

SIDE = 16
"""Voxels along the template's longest side."""
ROTATIONS = 600
"""Of space: neighbours are some 20 degrees apart, which registration reaches. In a plane `ANGLES`."""
ANGLES = 36
LARGEST = 48
"""Voxels along the query's longest side at most: one that shows far more than the template is seen more coarsely."""
SMOOTHING = 0.8
"""Deviation in those voxels."""
APART = np.radians(15)
"""Rotations that are nearer to a better one are not tried again."""


def turned(query: sitk.Image, template: sitk.Image, count: int) -> list[sitk.AffineTransform]:
    """The rotations (with the shift that suits each) under which a template correlates best with a query.

    Args:
        query, template: 2D or 3D, values around 0 outside of what they show.
        count: so many at most, the best first.

    Returns:
        Rigid maps from the query's millimetres (LPS) to the template's, as ITK's registration takes them.
    """
    dimension = query.GetDimension()
    longest, widest = (
        float((np.array(image.GetSize()) * np.array(image.GetSpacing())).max()) for image in (template, query)
    )
    step = max(longest / SIDE, widest / LARGEST)
    (fixed, fixed_centre), (moving, moving_centre) = (_coarse(image, step) for image in (query, template))
    across = int(np.ceil(np.linalg.norm(moving.shape)))
    sides = [fft.next_fast_len(across + side, real=True) for side in fixed.shape]
    spectrum = fft.rfftn(fixed, sides)
    grid = np.stack(np.meshgrid(*[np.arange(across)] * dimension, indexing="ij"), axis=-1) - (across - 1) / 2
    frames = [np.array(image.GetDirection()).reshape(dimension, dimension) for image in (query, template)]
    tried = []
    for matrix in _rotations(dimension):
        index = grid @ (frames[1].T @ matrix.T @ frames[0]).T + (np.array(moving.shape) - 1) / 2
        rotated = map_coordinates(moving, np.moveaxis(index, -1, 0), order=1, mode="constant")
        products = fft.irfftn(spectrum * np.conj(fft.rfftn(rotated, sides)), sides)
        best = np.unravel_index(products.argmax(), products.shape)
        strength = products[best] / (np.linalg.norm(rotated) + 1e-9)
        low = [a if a < side else a - whole for a, side, whole in zip(best, fixed.shape, sides, strict=True)]
        shift = np.array(low) + (across - 1) / 2 - (np.array(fixed.shape) - 1) / 2
        tried.append((float(strength), matrix, fixed_centre + frames[0] @ shift * step))
    tried.sort(key=lambda of: -of[0])
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _, matrix, place in tried:
        if all(_angle(matrix @ other.T) > APART for other, _ in kept):
            kept.append((matrix, place))
        if len(kept) == count:
            break
    return [_transform(matrix, place, moving_centre) for matrix, place in kept]


def rotation_of(transform: sitk.AffineTransform) -> np.ndarray:
    """The rotation ``[D, D]`` in an affine map: that of its polar decomposition."""
    dimension = transform.GetDimension()
    left, _, right = np.linalg.svd(np.array(transform.GetMatrix()).reshape(dimension, dimension))
    return np.asarray(left @ right)


def _rotations(dimension: int) -> np.ndarray:
    """Evenly spread rotations ``[N, D, D]``: of space a super-Fibonacci spiral (Alexa, CVPR 2022)."""
    if dimension == 2:
        angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
        return np.moveaxis(
            np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]), -1, 0
        )
    position = np.arange(ROTATIONS) + 0.5
    share = position / ROTATIONS
    first, second = 2 * np.pi * position / np.sqrt(2), 2 * np.pi * position / 1.533751168755204288118041
    quaternions = np.stack(
        [
            np.sqrt(share) * np.sin(first),
            np.sqrt(share) * np.cos(first),
            np.sqrt(1 - share) * np.sin(second),
            np.sqrt(1 - share) * np.cos(second),
        ],
        axis=1,
    )
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())


def _coarse(image: sitk.Image, step: float) -> tuple[np.ndarray, np.ndarray]:
    """An image with voxels of one step, its mean taken off, as ``[x, y(, z)]``; and its centre in millimetres."""
    extent = np.array(image.GetSize()) * np.array(image.GetSpacing())
    size = np.maximum(np.ceil(extent / step), 1).astype(int).tolist()
    centre = np.array(
        image.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in image.GetSize()])
    )
    frame = np.array(image.GetDirection()).reshape(len(size), len(size))
    origin = centre - frame @ ((np.array(size) - 1) / 2) * step
    smooth = sitk.DiscreteGaussian(image, [(SMOOTHING * step) ** 2] * len(size), 64)
    small = sitk.Resample(
        smooth,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        origin.tolist(),
        [step] * len(size),
        image.GetDirection(),
    )
    array = sitk.GetArrayFromImage(small).T.astype(np.float32)
    return array - array.mean(), centre


def _transform(matrix: np.ndarray, place: np.ndarray, centre: np.ndarray) -> sitk.AffineTransform:
    transform = sitk.AffineTransform(len(place))
    transform.SetCenter(place.tolist())
    transform.SetMatrix(matrix.T.ravel().tolist())
    transform.SetTranslation((centre - place).tolist())
    return transform


def _angle(matrix: np.ndarray) -> float:
    if len(matrix) == 2:
        return float(abs(np.arctan2(matrix[1, 0], matrix[0, 0])))
    return float(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
