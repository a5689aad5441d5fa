"""Write results with the exact geometry of their image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fastapi import HTTPException

if TYPE_CHECKING:
    from fewshot.volumes import Volume

NIFTI = (".nii.gz", ".nii")
PICTURES = (".png", ".tif", ".tiff")
LOSSY = (".jpg", ".jpeg")
OTHERS = (".nrrd", ".mha")


def default_extension(image: str) -> str:
    """The result's format where none was asked for: that of the image, or one that can hold labels."""
    name = image.lower()
    if name.endswith((*PICTURES, *LOSSY)):
        return ".png"
    return next((known for known in (*NIFTI, *OTHERS) if name.endswith(known)), ".nii.gz")


def write_result(
    labels: np.ndarray, volume: Volume, *, extension: str, dtype: str | None = None, compress: bool = False
) -> str:
    """Write a label map to a temporary file.

    MONAI Label's own writer goes through ITK's Python package, which takes seconds to load and makes the
    axes of a NIfTI file orthogonal (those of a CT with a tilted gantry are not).

    Args:
        labels: [X, Y, Z] on the grid of `volume`.
        volume: whose geometry the file gets.
        extension: the format.
        dtype: numpy's name of the voxels' type; that of `labels` by default.
        compress: whether formats that can be either are compressed.

    Raises:
        HTTPException: 422 if the format or the type cannot hold it.

    Returns:
        The file's path; the caller removes it.
    """
    extension = extension.lower()
    if not extension.endswith((*NIFTI, *OTHERS, *PICTURES)):
        known = ", ".join((*NIFTI, *OTHERS, ".png"))
        raise HTTPException(422, f"A result cannot be written as {extension}: ask for {known}.")
    if extension in PICTURES and labels.shape[2] != 1:
        raise HTTPException(422, f"{extension} holds one slice: ask for .nii.gz or .nrrd instead.")
    try:
        voxels = labels.astype(dtype) if dtype else labels
    except TypeError:
        raise HTTPException(422, f"There is no voxel type {dtype}: ask for uint8 or uint16.") from None
    with tempfile.NamedTemporaryFile(suffix=extension, delete=False) as file:
        path = Path(file.name)
    try:
        if extension in NIFTI:
            _write_nifti(path, voxels, volume.affine)
        else:
            _write_itk(path, voxels, volume.affine, compress=compress)
    except (OSError, RuntimeError, ValueError) as error:
        path.unlink()
        reason = str(error).strip().splitlines()[-1]
        raise HTTPException(
            422, f"The result was not written as {voxels.dtype} {extension}: {reason}"
        ) from error
    return str(path)


def _write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not np.allclose(image.get_qform(), affine, atol=1e-3):
        image.set_qform(None)  # a quaternion cannot hold a sheared affine; the sform does
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_itk(path: Path, voxels: np.ndarray, affine: np.ndarray, *, compress: bool) -> None:
    import SimpleITK as sitk  # noqa: N813 - as ITK itself calls it

    from fewshot.volumes.itk import to_itk

    image = to_itk(voxels, affine)
    sitk.WriteImage(image[:, :, 0] if path.suffix in PICTURES else image, str(path), useCompression=compress)
