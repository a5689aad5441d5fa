"""Write label maps: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes.raw import NIFTI, extension_of, grid_text
from fewshot.volumes.volume import Volume

WRITABLE = (*NIFTI, ".nrrd", ".mha", ".png")


def write_labels(path: Path | str, labels: np.ndarray, like: Volume) -> None:
    """Write an integer label map with the geometry of `like`, in the format that the extension names.

    The file appears complete or not at all, and a file of that name is replaced in one step.

    Args:
        path: .nii, .nii.gz, .nrrd, .mha, or .png where the volume is a single picture.
        labels: Label values [X, Y, Z], on the grid of `like`; stored as uint8 where they fit, else uint16.
        like: The volume that the labels belong to.

    Raises:
        FewshotError: The labels are on another grid or out of range, or the format cannot hold them.
    """
    path = Path(path)
    extension = extension_of(path)
    if extension not in WRITABLE:
        raise FewshotError(f"{path} has no extension for labels; end it in {', '.join(WRITABLE)}.")
    if labels.shape != like.shape:
        raise FewshotError(
            f"{path} was not written: the labels have the grid {grid_text(labels.shape)}, "
            f"the image {like.name} {grid_text(like.shape)}; bring them onto the image's grid first."
        )
    if extension == ".png" and like.shape[2] != 1:
        raise FewshotError(f"{path} was not written: a PNG holds one slice; end the name in .nii.gz.")
    labels = _smallest_type(path, labels)
    try:
        # a folder beside it: the same file system for the replacing, and no half file under a known extension
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            written = Path(folder) / f"labels{extension}"
            _write(written, extension, labels, like)
            os.replace(written, path)
    except (OSError, RuntimeError) as error:
        raise FewshotError(
            f"{path} was not written ({error}); check the folder and the space in it."
        ) from error


def _smallest_type(path: Path, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "biu":
        raise FewshotError(
            f"{path} was not written: labels are integers, not {labels.dtype}; round them first."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise FewshotError(
            f"{path} was not written: label values go from {lowest} to {highest}, not 0 to 65535."
        )
    return labels.astype(np.uint8 if highest < 256 else np.uint16)


def _write(path: Path, extension: str, labels: np.ndarray, like: Volume) -> None:
    if extension in NIFTI:
        image = nib.Nifti1Image(labels, like.affine)
        image.set_sform(like.affine, code="scanner")
        image.set_qform(like.affine, code="scanner")
        if not np.allclose(image.get_qform(), like.affine, atol=1e-3):
            image.set_qform(None)  # a quaternion cannot hold a sheared affine; the sform does
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
    elif extension == ".png":
        from fewshot.volumes.picture import write_picture

        write_picture(path, labels)
    else:
        import SimpleITK

        from fewshot.volumes.itk import to_itk

        SimpleITK.WriteImage(to_itk(labels, like.affine), str(path), useCompression=True)
