"""What ITK reads, in the engine's order and axes: NRRD and MetaImage files, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes.raw import Raw, damaged, several_volumes
from fewshot.volumes.volume import spacing_of

if TYPE_CHECKING:
    import SimpleITK

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(path: Path) -> Raw:
    """Read a NRRD or MetaImage file.

    Raises:
        FewshotError: The file is damaged or holds more than one volume.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise damaged(path, error) from error
    return from_itk(image, path)


def from_itk(image: SimpleITK.Image, path: Path) -> Raw:
    """An ITK image as array [X, Y, Z] (channels last) and RAS affine.

    Raises:
        FewshotError: The image has more than one volume or fewer than two axes.
    """
    import SimpleITK

    size = image.GetSize()
    if len(size) < 2:
        raise FewshotError(f"{path} has {len(size)} axis; give an image with two or three.")
    if any(side > 1 for side in size[3:]):
        raise several_volumes(path, size)
    channels = image.GetNumberOfComponentsPerPixel() > 1
    array = SimpleITK.GetArrayFromImage(image)
    axes = list(range(len(size)))[::-1]
    array = array.transpose(*axes, len(size)) if channels else array.transpose(axes)
    kept = (*size, 1)[:3]
    array = array.reshape(*kept, array.shape[-1]) if channels else array.reshape(kept)

    dimension = len(size)
    affine = np.eye(4)
    take = min(dimension, 3)
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:take, :take]
    affine[:take, :take] = direction * np.asarray(image.GetSpacing())[:take]
    affine[:take, 3] = image.GetOrigin()[:take]
    return Raw(array, LPS_TO_RAS @ affine, channels=channels)


def to_itk(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    """An array [X, Y, Z] with its RAS affine as an ITK image."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = LPS_TO_RAS @ affine
    spacing = np.asarray(spacing_of(lps))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
