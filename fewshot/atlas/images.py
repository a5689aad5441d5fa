"""Volumes and pictures as SimpleITK images, and with fewer voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 - what everybody calls it

from fewshot.volumes.itk import LPS_TO_RAS, to_itk

WORKING_VOXELS = 60_000
"""Images are reduced to this many voxels: structures of a few coarse voxels still register, in seconds."""
WORKING_PIXELS = 16_384
"""Likewise for pictures."""
LEAST_VOXELS = 4
"""Along every axis: ITK's Gaussian filters need them."""


def reduced(image: sitk.Image) -> sitk.Image:
    """An image with nearly cubic voxels, as far as its own go, and few enough for registration."""
    return with_voxels(image, WORKING_PIXELS if image.GetDimension() == 2 else WORKING_VOXELS)


def to_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An array ``[X, Y, Z]`` as float32 image, 2D (and without orientation) where Z is 1."""
    array = array.astype(np.float32, copy=False)
    if array.shape[2] > 1:
        return to_itk(array, affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array[:, :, 0].T))
    image.SetSpacing(np.linalg.norm(affine[:3, :2], axis=0).tolist())
    image.SetOrigin(affine[:2, 3].tolist())
    return image


def affine_of(image: sitk.Image) -> np.ndarray:
    """``[4, 4]``, voxel index -> RAS+ mm; of a picture its spacing and origin alone."""
    dimension = image.GetDimension()
    affine = np.eye(4)
    affine[:dimension, :dimension] = axes(image)
    affine[:dimension, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine if dimension == 3 else affine


def to_array(image: sitk.Image) -> np.ndarray:
    """The inverse of `to_image`: ``[X, Y, Z]``."""
    array = sitk.GetArrayFromImage(image)
    return array.T[:, :, None] if array.ndim == 2 else array.transpose(2, 1, 0)


def axes(image: sitk.Image) -> np.ndarray:
    """Steps from voxel to voxel as columns, mm."""
    dimension = image.GetDimension()
    return np.array(image.GetDirection()).reshape(dimension, dimension) * np.array(image.GetSpacing())


def with_voxels(image: sitk.Image, voxels: int) -> sitk.Image:
    """At most so many voxels, the fine axes made coarser first."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    step = float(spacing.min())
    while np.prod(_sides(size, spacing, step)) > voxels:
        step *= 1.05
    return with_size(image, _sides(size, spacing, step).tolist())


def _sides(size: np.ndarray, spacing: np.ndarray, step: float) -> np.ndarray:
    """Voxels along each axis; a volume of few slices stays one."""
    sides = np.round(size * spacing / np.maximum(spacing, step))
    return np.maximum(np.where(size > 1, LEAST_VOXELS, 1), sides).astype(int)


def with_size(image: sitk.Image, size: Sequence[int]) -> sitk.Image:
    """The same extent with another number of voxels; averaged first where that is much fewer."""
    if tuple(size) == image.GetSize():
        return image
    step = np.array(image.GetSize()) * np.array(image.GetSpacing()) / np.array(size)
    dimension = image.GetDimension()
    turn = np.array(image.GetDirection()).reshape(dimension, dimension)
    origin = np.array(image.GetOrigin()) + turn @ ((step - np.array(image.GetSpacing())) / 2)
    blocks = np.maximum(1, np.floor(step / np.array(image.GetSpacing()) + 1e-6)).astype(int)
    averaged = sitk.BinShrink(image, blocks.tolist()) if (blocks > 1).any() else image
    return sitk.Resample(
        averaged,
        [int(side) for side in size],
        sitk.Transform(dimension, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin.tolist(),
        step.tolist(),
        image.GetDirection(),
        0.0,
        sitk.sitkUnknown,
        useNearestNeighborExtrapolator=True,
    )
