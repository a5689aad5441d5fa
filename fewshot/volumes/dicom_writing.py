"""Write a volume as a DICOM image series, as a PACS keeps it."""

from __future__ import annotations

import locale
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes.itk import to_itk
from fewshot.volumes.volume import Volume

if TYPE_CHECKING:
    import SimpleITK

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
"""DICOM modalities that can be written and the classes of their images."""

JPEG_2000 = "JPEG2000"
COMPRESSIBLE = 64
"""Pixels that a slice must have along each side: OpenJPEG's five resolutions crash on smaller ones."""


def write_dicom(
    volume: Volume,
    folder: Path,
    *,
    patient: str,
    description: str,
    modality: str = "CT",
    study: str | None = None,
    compress: bool = False,
) -> str:
    """Write one file per slice along the third voxel axis; 16-bit voxels, rounded.

    Args:
        volume: the image; CT in Hounsfield units.
        folder: receives `0001.dcm`, ...; made if missing.
        patient: patient's name and ID.
        description: of study and series.
        modality: one of `SOP_CLASSES`.
        study: UID of the study that the series belongs to; a new one by default.
        compress: JPEG 2000, without loss.

    Returns:
        The series' UID.

    Raises:
        FewshotError: for another modality, voxels that 16 bits cannot hold, or slices too small to compress.
    """
    import SimpleITK

    if modality not in SOP_CLASSES:
        raise FewshotError(
            f"Modality {modality} cannot be written as DICOM; one of {', '.join(SOP_CLASSES)} can."
        )
    voxels = np.rint(volume.array)
    if voxels.min() < -32768 or voxels.max() > 32767:
        raise FewshotError(
            f"{volume.name or 'A volume'} has voxels beyond 16 bits: scale it before writing DICOM."
        )
    if compress and min(volume.shape[:2]) < COMPRESSIBLE:
        raise FewshotError(
            f"Slices of {volume.shape[0]} x {volume.shape[1]} pixels are too small for JPEG 2000."
        )
    folder.mkdir(parents=True, exist_ok=True)
    image = to_itk(voxels.astype(np.int16), volume.affine)
    series = new_uid()
    common = {
        "0008|0016": SOP_CLASSES[modality],
        "0008|0020": "20250101",  # study date and time: OHIF sorts its list by them
        "0008|0030": "120000",
        "0008|0060": modality,
        "0008|1030": description,
        "0008|103e": description,
        "0010|0010": patient,
        "0010|0020": patient,
        "0020|000d": study or new_uid(),
        "0020|000e": series,
        "0020|0011": "1",
        "0020|0052": new_uid(),
        "0020|0037": "\\".join(f"{value:.8g}" for value in _orientation(image.GetDirection())),
        "0018|0050": f"{volume.spacing[2]:.8g}",
    }
    if modality == "CT":
        common |= {"0028|1050": "40", "0028|1051": "400", "0028|1054": "HU"}
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(compress)
    if compress:
        writer.SetCompressor(JPEG_2000)
    with _locale_kept():
        _write_slices(writer, image, common, folder)
    return series


def _write_slices(
    writer: SimpleITK.ImageFileWriter, image: SimpleITK.Image, common: dict[str, str], folder: Path
) -> None:
    for index in range(image.GetSize()[2]):
        piece = image[:, :, index : index + 1]  # GDCM takes the distance of slices from the image
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        own = {
            "0008|0018": new_uid(),
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(f"{value:.8g}" for value in position),
        }
        for key, value in {**common, **own}.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{index + 1:04d}.dcm"))
        writer.Execute(piece)


@contextmanager
def _locale_kept() -> Iterator[None]:
    """GDCM sets the process's locale to "C" when it writes; Python would read text as ASCII from then on."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def new_uid() -> str:
    """A DICOM UID that nobody else has (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def _orientation(direction: tuple[float, ...]) -> tuple[float, ...]:
    """Directions in which columns and rows are counted, from an ITK direction matrix."""
    matrix = np.asarray(direction).reshape(3, 3)
    return (*matrix[:, 0], *matrix[:, 1])
