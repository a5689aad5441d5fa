"""NIfTI files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fewshot.errors import FewshotError
from fewshot.volumes.raw import Raw, damaged, several_volumes
from fewshot.volumes.volume import is_regular

DAMAGE = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError)
NIFTI2_HEADER = 540
VECTOR_INTENTS = (1007, 2003, 2004)
"""NIfTI's codes for vector, RGB and RGBA voxels; ITK writes colour as the first."""
UNPLACED = "position and direction unknown"
"""In the notes of a volume whose file does not say where its voxels lie."""


def read_nifti(path: Path, *, channel: int | None = None) -> Raw:
    """Read a NIfTI file, with colour as channels and missing or singular geometry mended.

    Args:
        path: The file.
        channel: Which of `count_channels` volumes along the fourth axis; None refuses files with several.

    Raises:
        FewshotError: The file is damaged, has fewer than two axes, or more than one volume.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            image = _kind(file).from_stream(file)
            array = np.asanyarray(image.dataobj)
            file.read()  # to the end, where gzip compares its checksum: a broken middle may decompress
    except DAMAGE as error:
        raise damaged(path, error) from error
    header = image.header
    array, channels = _split_channels(array, int(header["intent_code"]))
    if channel is not None and not channels and array.ndim == 4:
        array = array[..., channel]
    spatial = array.shape[:-1] if channels else array.shape
    if len(spatial) < 2:
        raise FewshotError(f"{path} has {len(spatial)} axis; give an image with two or three.")
    if any(side > 1 for side in spatial[3:]):
        raise several_volumes(path, spatial)
    kept = (*spatial[:3], 1)[:3]
    array = array.reshape(*kept, array.shape[-1]) if channels else array.reshape(kept)
    affine, placed, notes = _affine(header, kept)
    return Raw(array, affine, channels=channels, placed=placed, notes=notes)


def count_channels(path: Path) -> int:
    """How many volumes a NIfTI file has along its fourth axis, by its header alone.

    Raises:
        FewshotError: The file is damaged.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            shape = _kind(file).from_stream(file).shape
    except DAMAGE as error:
        raise damaged(path, error) from error
    return int(shape[3]) if len(shape) == 4 else 1


def _kind(file: BinaryIO | gzip.GzipFile) -> type[nib.Nifti1Image]:
    """NIfTI-1 or NIfTI-2, told apart by the size of the header that a file begins with."""
    size = file.read(4)
    file.seek(0)
    second = NIFTI2_HEADER in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
    return nib.Nifti2Image if second else nib.Nifti1Image


def _split_channels(array: np.ndarray, intent: int) -> tuple[np.ndarray, bool]:
    """Colour as a last axis of channels: from RGB voxels, or from a fifth axis declared to be a vector."""
    if array.dtype.names:
        return np.stack([array[name] for name in array.dtype.names], axis=-1), True
    if array.ndim == 5 and array.shape[3] == 1 and array.shape[4] in (3, 4) and intent in VECTOR_INTENTS:
        return array[:, :, :, 0], True
    return array, False


def _affine(header: nib.Nifti1Header, shape: tuple[int, ...]) -> tuple[np.ndarray, bool, tuple[str, ...]]:
    """The header's affine, or one from its spacing alone where it has none that can be used."""
    if int(header["sform_code"]) or int(header["qform_code"]):
        try:
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        except DAMAGE:
            affine = np.zeros((4, 4))
        if is_regular(affine):
            return affine, True, ()
        note = f"the affine is singular: {UNPLACED}, spacing taken from the header"
    else:
        note = f"the file has no affine: {UNPLACED}, spacing taken from the header"
    spacing = np.ones(3)
    zooms = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    usable = np.isfinite(zooms) & (zooms > 0)
    spacing[usable] = zooms[usable]
    # NIfTI's own fallback (method 1) and nibabel's: centred, first axis running to the patient's left
    steps = spacing * (-1, 1, 1)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = -steps * (np.asarray(shape) - 1) / 2
    return affine, False, (note,)
