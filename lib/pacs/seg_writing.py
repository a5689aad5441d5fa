"""Label maps -> DICOM segmentations (SEG), each label under its own name.

The converter is dcmqi's `itkimage2segimage`, which MONAI Label uses too. It is called here rather than through
MONAI Label's `nifti_to_dicom_seg`, which names the i-th label that is present with the i-th name of the list, and
loses what the converter says when it fails. The converter refuses texts that are not ASCII and copies the image's
character set, so that texts are put in afterwards, in UTF-8.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, write_labels
from fewshot.volumes.itk import LPS_TO_RAS
from fewshot.volumes.raw import grid_text
from lib.pacs.seg_reading import LARGEST, SegHeader, read_header

CONVERTER = "itkimage2segimage"
LONGEST = 64
"""Characters of a text in DICOM (LO)."""
SERIES_NUMBER = "300"
"""What MONAI Label gives its segmentations: after the images."""
STRUCTURE = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
"""Category and type of every segment: all that is known of a label is its name."""


def write_seg(
    labels: np.ndarray,
    names: Mapping[int, str],
    series: Path,
    volume: Volume,
    out: Path,
    *,
    description: str,
    algorithm: Literal["MANUAL", "AUTOMATIC"],
    algorithm_name: str,
    creator: str,
) -> SegHeader:
    """Write a label map as a SEG with one segment for each value that occurs, in the order of the values.

    The file appears complete or not at all. Every call makes a series of its own.

    Args:
        labels: Label values [X, Y, Z] on the grid of `volume`.
        names: What each value stands for; values that do not occur do not matter.
        series: Folder with the DICOM files of the image.
        volume: The image as `read_volume` reads it from that folder.
        out: The file to write.
        description: The SEG's SeriesDescription (cut to 64 characters).
        algorithm: "MANUAL" for what a person drew or corrected, "AUTOMATIC" for what a model said.
        algorithm_name: Which model, where it was one.
        creator: Who drew it, for ContentCreatorName.

    Returns:
        The header, as `read_header` would read it from the file.

    Raises:
        FewshotError: Nothing is labelled, a label has no name that DICOM can hold, or the conversion failed.
    """
    if labels.shape != volume.shape:
        raise FewshotError(
            f"No segmentation was written: the labels have the grid {grid_text(labels.shape)}, the image "
            f"{volume.name} {grid_text(volume.shape)}; bring them onto the image's grid first."
        )
    slices = np.flatnonzero(labels.any(axis=(0, 1)))
    # slice by slice: numpy would make eight bytes of every voxel at once
    present = {
        value for at in slices for value in np.flatnonzero(np.bincount(labels[:, :, at].ravel())).tolist()
    }
    values = sorted(present - {0})
    texts = [_label_name(names, value) for value in values]
    if not texts:
        raise FewshotError(f"No segmentation of {volume.name} was written: nothing is labelled in it.")
    if len(texts) > LARGEST:
        raise FewshotError(
            f"No segmentation of {volume.name} was written: it has {len(texts)} labels; use {LARGEST} at most."
        )
    numbers = np.zeros(values[-1] + 1, dtype=np.uint8)
    numbers[values] = np.arange(1, len(values) + 1)
    low, high = int(slices[0]), int(slices[-1]) + 1
    numbered = np.stack([numbers[labels[:, :, at]] for at in range(low, high)], axis=2)
    affine = volume.affine.copy()
    affine[:, 3] = affine @ (0, 0, low, 1)
    slab = replace(volume, array=volume.array[:, :, low:high], affine=affine)
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as folder:
            drawn, made = Path(folder) / "labels.nrrd", Path(folder) / "seg.dcm"
            write_labels(drawn, numbered, slab)
            _convert(
                drawn, _placed(series, volume, Path(folder) / "picture"), made, _template(texts, algorithm)
            )
            dataset = pydicom.dcmread(made)
            _describe(dataset, texts, description=description, algorithm_name=algorithm_name, creator=creator)
            dataset.save_as(made)
            os.replace(made, out)
    except OSError as error:
        raise FewshotError(
            f"{out} was not written ({error}); check the folder and the space in it."
        ) from error
    return read_header(dataset)


def colour_of(name: str) -> tuple[int, int, int]:
    """Red, green, blue (0..255) of a label: MONAI Label's where it has one, else always the same of its own."""
    from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS

    known = GENERIC_ANATOMY_COLORS.get(name.lower())
    if known:
        return known[0], known[1], known[2]
    hue = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=2).digest(), "big") / 65536
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _label_name(names: Mapping[int, str], value: int) -> str:
    """The name of a value, checked.

    Raises:
        FewshotError: It has none, or one that a SEG cannot hold.
    """
    name = names.get(value, "").strip()
    if not name:
        raise FewshotError(f"No segmentation was written: the label value {value} has no name; give it one.")
    if len(name) > LONGEST or "\\" in name or not name.isprintable():
        raise FewshotError(
            f"No segmentation was written: DICOM cannot hold the label name {name!r}; rename it to at most "
            f"{LONGEST} characters without backslash."
        )
    return name


def _template(names: list[str], algorithm: str) -> dict[str, Any]:
    """What the converter has to know, in ASCII."""
    segments = []
    for number, name in enumerate(names, start=1):
        segment: dict[str, Any] = {
            "labelID": number,
            "SegmentLabel": str(number),
            "SegmentDescription": str(number),
            "SegmentAlgorithmType": algorithm,
            "SegmentedPropertyCategoryCodeSequence": STRUCTURE,
            "SegmentedPropertyTypeCodeSequence": STRUCTURE,
            "recommendedDisplayRGBValue": colour_of(name),
        }
        if algorithm != "MANUAL":
            segment["SegmentAlgorithmName"] = "model"
        segments.append(segment)
    return {"SeriesNumber": SERIES_NUMBER, "InstanceNumber": "1", "segmentAttributes": [segments]}


def _placed(series: Path, volume: Volume, folder: Path) -> Path:
    """The image's folder; for a picture without position (a radiograph), `folder` with a copy that has one.

    The converter needs a position, and `read_volume` has given the picture one already.
    """
    if volume.shape[2] > 1:
        return series
    lps = LPS_TO_RAS @ volume.affine
    for path in sorted(series.glob("*")):
        try:
            picture = pydicom.dcmread(path)
        except (InvalidDicomError, IsADirectoryError):
            continue
        if picture.get("ImagePositionPatient") or "PixelData" not in picture:
            continue
        across, down = (lps[:3, axis] / volume.spacing[axis] for axis in (0, 1))
        picture.ImagePositionPatient = [f"{value:.9g}" for value in lps[:3, 3]]
        picture.ImageOrientationPatient = [f"{value:.9g}" for value in (*across, *down)]
        picture.PixelSpacing = [f"{volume.spacing[axis]:.9g}" for axis in (1, 0)]
        folder.mkdir()
        picture.save_as(folder / "picture.dcm")
        return folder
    return series


def _convert(drawn: Path, series: Path, made: Path, template: dict[str, Any]) -> None:
    """Run the converter.

    Raises:
        FewshotError: It is not installed, or failed.
    """
    beside = Path(sys.executable).parent / CONVERTER  # a virtual environment need not be on PATH
    converter = str(beside) if beside.is_file() else shutil.which(CONVERTER)
    if converter is None:
        raise FewshotError(f"No segmentation was written: {CONVERTER} is missing; run: pip install dcmqi.")
    metadata = made.with_suffix(".json")
    metadata.write_text(json.dumps(template), encoding="ascii")
    arguments = {
        "--inputImageList": drawn,
        "--inputDICOMDirectory": series,
        "--inputMetadata": metadata,
        "--outputDICOM": made,
    }
    run = subprocess.run(
        # the image's own attributes are copied, and many a scanner's are not quite as the standard wants them
        [converter, "--noDicomValueChecks", *(str(word) for pair in arguments.items() for word in pair)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode or not made.is_file():
        lines = [line.strip() for line in (run.stdout + "\n" + run.stderr).splitlines()]
        told = [line for line in lines if line and not line.startswith("Fatal error")]
        reason = told[-1].rstrip(".") if told else f"code {run.returncode}"
        raise FewshotError(
            f"No segmentation was written: {CONVERTER} failed ({reason}); "
            f"check the image's DICOM files in {series}."
        )


def _describe(
    dataset: pydicom.Dataset, names: list[str], *, description: str, algorithm_name: str, creator: str
) -> None:
    """Put the texts and the time into what the converter made."""
    dataset.decode()  # the patient's name with the image's character set, before another one is declared
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for segment, name in zip(dataset.SegmentSequence, names, strict=True):
        segment.SegmentLabel = segment.SegmentDescription = name
        segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = name
        if "SegmentAlgorithmName" in segment:
            segment.SegmentAlgorithmName = _plain(algorithm_name) or "unknown"
    dataset.SeriesDescription = dataset.ContentDescription = _plain(description)
    dataset.ContentLabel = "SEGMENTATION"
    dataset.ContentCreatorName = _plain(creator)
    # as OHIF writes it: UTC. Fractions tell what was saved within one second apart
    now = datetime.now(UTC)
    dataset.ContentDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.ContentTime = dataset.SeriesTime = now.strftime("%H%M%S.%f")


def _plain(text: str) -> str:
    """A text as DICOM can hold it: one line, without the characters that separate values, not too long."""
    return " ".join(text.replace("\\", "/").split())[:LONGEST].strip()
