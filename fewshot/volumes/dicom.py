"""DICOM: the one image series of a folder, or a single image file."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes.itk import LPS_TO_RAS, from_itk
from fewshot.volumes.raw import Raw, damaged, grid_text
from fewshot.volumes.volume import modality_of

NOT_IMAGES = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "PR", "KO", "REG", "FID", "DOC", "M3D")
IMAGE_CLASS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(1|2|3|4|6|7|12|20|77|128|130)(?![0-9])")
"""SOP classes of images, where the header of a file begins with one (CR, CT, US, MR, SC, XA, NM, VL, PT)."""
SPACINGS = ("0028|0030", "0018|1164", "0018|2010")
"""Pixel Spacing, Imager Pixel Spacing (X-ray, at the detector) and Nominal Scanned Pixel Spacing."""
UNEVEN = 0.05
"""Share of the mean slice distance by which a slice may be off without a note (positions are rounded)."""
GAP = 1.5
"""Distance, in usual slice distances, from which a slice must be missing."""


@dataclass(frozen=True)
class _File:
    """One DICOM image file: what is needed to find its series and its place in it."""

    path: Path
    series: str
    description: str
    modality: str
    size: tuple[int, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spaced: bool


def read_dicom(path: Path) -> Raw:
    """Read a folder with one image series (other objects in it are skipped), or a single image file.

    Raises:
        FewshotError: There is no image series or more than one, slices are missing or share a position,
            or a file is damaged.
    """
    if path.is_dir():
        return _read_series(path, *_only_series(path))
    file = _read_tags(path)
    if file is None or file.modality in NOT_IMAGES:
        kind = f"a DICOM {file.modality} object" if file else "no DICOM image, or a damaged one"
        raise FewshotError(f"{path} is {kind}; give the image series that it belongs to.")
    return _read_series(path, [file], [])


def _only_series(folder: Path) -> tuple[list[_File], list[str]]:
    """The files of the only image series in a folder, and notes."""
    series: dict[str, list[_File]] = {}
    skipped = 0
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        file = _read_tags(path)
        if file is None or file.modality in NOT_IMAGES:
            skipped += 1
        else:
            series.setdefault(file.series, []).append(file)
    if not series:
        raise FewshotError(f"{folder} holds no DICOM image series; give the folder that its files lie in.")
    if len(series) > 1:
        listing = "; ".join(
            f"{files[0].modality or 'image'} {files[0].description!r} with {len(files)} files ({uid})"
            for uid, files in series.items()
        )
        raise FewshotError(
            f"{folder} holds {len(series)} image series: {listing}; give a folder with one of them."
        )
    notes = [f"{skipped} files of the folder skipped: they hold no image"] if skipped else []
    return next(iter(series.values())), notes


def _read_tags(path: Path) -> _File | None:
    """What a DICOM file says of itself, None where it is no image.

    Raises:
        FewshotError: It is an image, but damaged.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if _declares_image(path):
            raise damaged(path, error) from error
        return None

    def tag(key: str) -> str:
        return reader.GetMetaData(key).strip(" \0") if reader.HasMetaDataKey(key) else ""

    return _File(
        path=path,
        series=tag("0020|000e"),
        description=tag("0008|103e"),
        modality=tag("0008|0060").upper(),
        size=tuple(reader.GetSize()),
        position=_numbers(tag("0020|0032")),
        orientation=_numbers(tag("0020|0037")),
        # enhanced objects keep their spacing per frame, where ITK finds it and this tag reader does not
        spaced=any(tag(key) for key in SPACINGS) or reader.GetSize()[2:3] > (1,),
    )


def _declares_image(path: Path) -> bool:
    """Whether a file says that it is a DICOM image; if it cannot be read it is damaged, not another object."""
    with path.open("rb") as file:
        head = file.read(1024)
    return head[128:132] == b"DICM" and IMAGE_CLASS.search(head) is not None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split("\\")) if text else ()
    except ValueError:
        return ()


def _read_series(path: Path, files: list[_File], notes: list[str]) -> Raw:
    """Voxels and geometry of files that belong together."""
    import SimpleITK

    step: np.ndarray | None = None
    if len(files) > 1:
        files, step, uneven = _in_order(path, files)
        notes = notes + uneven
    try:
        image = SimpleITK.ReadImage(
            [str(file.path) for file in files] if len(files) > 1 else str(files[0].path)
        )
    except RuntimeError as error:
        raise damaged(path, error) from error
    raw = from_itk(image, path)
    affine = raw.affine
    if step is not None:
        # the step from slice to slice as the positions tell it: right for a tilted gantry as well
        affine = affine.copy()
        affine[:3, 2] = LPS_TO_RAS[:3, :3] @ step
    calibrated = files[0].spaced
    if not calibrated:
        notes.append("the file has no pixel spacing: sizes in millimetres are unknown")
    return Raw(
        raw.array,
        affine,
        channels=raw.channels,
        calibrated=calibrated,
        modality=modality_of(files[0].modality),
        notes=tuple(notes),
    )


def _in_order(path: Path, files: list[_File]) -> tuple[list[_File], np.ndarray, list[str]]:
    """Slices sorted along their normal, the step [3] between them in LPS millimetres, and notes.

    Raises:
        FewshotError: Slices differ in size or direction, have no position, share one, or are missing.
    """
    first = files[0]
    if any(len(file.position) != 3 or len(file.orientation) != 6 for file in files):
        raise FewshotError(f"{path} has slices without position or direction; export the series again.")
    for file in files:
        if file.size != first.size or not np.allclose(file.orientation, first.orientation, atol=1e-3):
            raise FewshotError(
                f"{path} mixes slices of different size or direction in one series: {file.path.name} "
                f"({grid_text(file.size)}) and {first.path.name} ({grid_text(first.size)}); "
                "give a folder without the scout images."
            )
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    files = sorted(files, key=lambda file: float(np.dot(normal, file.position)))
    positions = np.array([file.position for file in files])
    heights = positions @ normal
    gaps = np.diff(heights)
    if (gaps < 1e-3).any():
        shared = files[int(np.argmax(gaps < 1e-3))]
        raise FewshotError(
            f"{path} has several slices at one position ({shared.path.name} and another): more than one "
            "volume, such as time points or echoes; give a folder with one of them."
        )
    usual = statistics.median_low(gaps.tolist())
    if gaps.max() > GAP * usual:
        at = int(np.argmax(gaps))
        raise FewshotError(
            f"{path} lacks slices: {gaps[at]:.2f} mm between {files[at].path.name} and "
            f"{files[at + 1].path.name}, elsewhere {usual:.2f} mm; add the missing files."
        )
    step = (positions[-1] - positions[0]) / (len(files) - 1)
    mean = float(heights[-1] - heights[0]) / (len(files) - 1)
    notes = []
    if np.abs(gaps - mean).max() > UNEVEN * mean:
        notes.append(f"uneven slice distance, {gaps.min():.2f} to {gaps.max():.2f} mm: {mean:.2f} mm is used")
    if np.linalg.norm(step) > 1.0005 * mean:
        notes.append("slices are offset from one another (tilted gantry): the affine is sheared")
    return files, step, notes
