"""Any supported file as an array and an affine, before a meaning (image or labels) is given to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.errors import FewshotError

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
DICOM = (".dcm",)
EXTENSIONS = NIFTI + ITK + PICTURES + DICOM


@dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds.

    Args:
        array: [X, Y, Z], or [X, Y, Z, C] where a voxel has C channels; the file's own number type.
        affine: [4, 4], voxel index -> RAS+ millimetres.
        channels: Whether the array has a last axis of channels.
        placed: False where the file does not say where its voxels lie.
        calibrated: False where the file does not say how large its voxels are.
        modality: From the file's own tag, "" without one.
        notes: What reading had to decide.
    """

    array: np.ndarray
    affine: np.ndarray
    channels: bool = False
    placed: bool = True
    calibrated: bool = True
    modality: str = ""
    notes: tuple[str, ...] = ()


def read_raw(path: Path, *, labels: bool = False) -> Raw:
    """Read a file, or a folder with one DICOM series, by its kind.

    Args:
        path: The file or folder.
        labels: Whether a picture's palette stands for label values.

    Raises:
        FewshotError: The file is missing, of an unknown kind, damaged, or not one three-dimensional image.
    """
    if not path.exists():
        raise FewshotError(f"{path} does not exist; check the name.")
    extension = extension_of(path)
    if path.is_dir() or extension in DICOM or (not extension and _has_dicom_magic(path)):
        from fewshot.volumes.dicom import read_dicom

        raw = read_dicom(path)
    elif extension in NIFTI:
        from fewshot.volumes.nifti import read_nifti

        raw = read_nifti(path)
    elif extension in ITK:
        from fewshot.volumes.itk import read_itk

        raw = read_itk(path)
    elif extension in PICTURES:
        from fewshot.volumes.picture import read_picture

        raw = read_picture(path, labels=labels)
    else:
        raise FewshotError(
            f"{path} is of no kind that can be read; give a DICOM folder or a file that ends in "
            f"{', '.join(EXTENSIONS)}."
        )
    if 0 in raw.array.shape:
        raise FewshotError(f"{path} is empty: its grid is {grid_text(raw.array.shape)}; export it again.")
    if raw.array.dtype.kind == "c":
        raise FewshotError(f"{path} holds complex numbers; save its magnitude as an image and give that.")
    return raw


def extension_of(path: Path) -> str:
    """The known extension that a file name ends in, in lower case, or ""."""
    name = path.name.lower()
    return next((extension for extension in EXTENSIONS if name.endswith(extension)), "")


def case_name(path: Path) -> str:
    """Name of a file without its extension(s), or of a folder."""
    return path.name[: len(path.name) - len(extension_of(path))] if not path.is_dir() else path.resolve().name


def damaged(path: Path, error: BaseException) -> FewshotError:
    """The failure of a file that breaks off or is not what its name says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RuntimeError):
        # ITK tells the place in its source, then the error, then a reason of the system that is often unrelated
        told = [line for line in lines if not line.startswith("Reason:")]
        lines = [re.sub(r"^(ITK |sitk::)ERROR: (\w+\(\w+\): )?", "", line) for line in told[::-1]]
    reason = lines[0].rstrip(".")
    return FewshotError(
        f"{path} cannot be read: it is damaged or incomplete ({reason}); copy or export it again."
    )


def several_volumes(path: Path, shape: tuple[int, ...]) -> FewshotError:
    """The failure of a file with more than one volume (time points, echoes, directions)."""
    return FewshotError(
        f"{path} holds more than one volume (grid {grid_text(shape)}); save the one that counts as a file."
    )


def grid_text(shape: tuple[int, ...]) -> str:
    """A grid as people write it: 512 x 512 x 100."""
    return " x ".join(str(side) for side in shape)


def _has_dicom_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
