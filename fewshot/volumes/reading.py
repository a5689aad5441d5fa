"""Read an image: every supported kind of file becomes one finite float volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes.raw import Raw, case_name, read_raw, several_volumes
from fewshot.volumes.volume import Volume, modality_of

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
HOUNSFIELD_AIR = -500.0
"""A volume in Hounsfield units that shows air goes below this; hardly any other image does."""


def read_volume(path: Path | str, *, modality: str | None = None) -> Volume:
    """Read an image file or a folder with one DICOM series.

    Args:
        path: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .png, .jpg, .tif, a DICOM file or folder.
        modality: What the caller knows ("CT", "MR", "XR" or a text with one of them); goes before the
            file's own tag, and this before a guess from the values.

    Raises:
        FewshotError: The file cannot be read as one volume; the sentence says why and what to do.
    """
    path = Path(path)
    return as_volume(read_raw(path), path, modality=modality)


def as_volume(raw: Raw, path: Path, *, modality: str | None = None) -> Volume:
    """Give the content of a file the meaning of an image: grey, finite, with the modality as far as it is known.

    Args:
        raw: What was read.
        path: From where, for the volume's name and for messages.
        modality: As in `read_volume`.

    Raises:
        FewshotError: It has channels that are no colour, or no finite voxel.
    """
    notes = list(raw.notes)
    array = raw.array
    if raw.channels:
        array = _grey(path, array)
        notes.append("colour converted to grey")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf and is mended as such
        array = np.asarray(array, dtype=np.float32)
    array = _finite(path, array, notes)
    known = modality_of(modality or "") or raw.modality
    if not known and looks_like_hounsfield(array):
        known = "CT"
        notes.append("no modality given: taken for CT because the values look like Hounsfield units")
    if float(array.min()) == float(array.max()):
        notes.append("all voxels are the same: there is nothing to see in any slice")
    return Volume(
        array=array,
        affine=raw.affine,
        modality=known,
        name=case_name(path),
        path=path,
        calibrated=raw.calibrated,
        notes=tuple(notes),
    )


def looks_like_hounsfield(array: np.ndarray) -> bool:
    """Whether values go down to air and a fair share of them is soft tissue, in Hounsfield units."""
    lowest = float(array.min())
    if not -10_000 <= lowest <= HOUNSFIELD_AIR:
        return False
    return float(((array > -200) & (array < 300)).mean()) >= 0.02


def _grey(path: Path, array: np.ndarray) -> np.ndarray:
    """Red, green, blue (and transparency, which is left out) [X, Y, Z, 3 or 4] as grey [X, Y, Z]."""
    if array.shape[-1] not in (3, 4):
        raise several_volumes(path, array.shape)
    return array[..., :3].astype(np.float32) @ LUMINANCE


def _finite(path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
    """The array with NaN and infinity at its lowest finite value."""
    finite = np.isfinite(array)
    missing = int(array.size - np.count_nonzero(finite))
    if missing == array.size:
        raise FewshotError(f"{path} has no finite voxel (all are NaN or infinite); export it again.")
    if missing:
        array = np.where(finite, array, array[finite].min())
        notes.append(f"{missing} NaN or infinite voxels set to the minimum")
    return array
