"""Landmarks -> DICOM structured reports (SR), TID 1500 "Measurement Report".

A point is told in millimetres in the image's frame of reference (SCOORD3D, Comprehensive 3D SR); of a radiograph that
has none, in pixels of the image (SCOORD, Comprehensive SR).
"""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    Comprehensive3DSR,
    ComprehensiveSR,
    ImageRegion,
    ImageRegion3D,
    SourceImageForMeasurement,
    SourceImageForRegion,
)
from pydicom import Dataset

from fewshot.errors import FewshotError
from fewshot.landmarks.result import LandmarkPrediction
from fewshot.landmarks.template import Point
from fewshot.volumes.dicom_writing import new_uid
from lib.pacs.sr_content import LONGEST, PROGRAM, SCHEME, Placed, by_hand, report_of
from lib.pacs.sr_images import Planes, in_space, read_images

DESCRIPTION = "Landmarks"
SERIES_NUMBER = 301
"""After the segmentations."""
NEEDED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""What highdicom wants of an image; there may be nothing in it."""


def write_sr(
    prediction: LandmarkPrediction,
    series: Path,
    out: Path,
    *,
    description: str = DESCRIPTION,
    creator: str = "",
) -> str:
    """Write the landmarks of an image as a structured report.

    The file appears complete or not at all. Every call makes a series of its own, because what is in a PACS does not
    change: of several reports of one image the one with the newest ContentDate and ContentTime counts.

    Args:
        prediction: what was found in the image, and what was not; its provenance names program, method and model.
        series: folder with the DICOM files of the image.
        out: the file to write.
        description: SeriesDescription (cut to 64 characters).
        creator: who had it made. Of what was marked by hand that is the observer; otherwise the observer is the
            program, and ParticipantSequence tells who.

    Returns:
        The report's SOPInstanceUID.

    Raises:
        FewshotError: without landmarks, for a name that DICOM cannot hold, an image whose files cannot be used, or a
            folder that cannot be written to.
    """
    images = read_images(series)
    images[0].decode()  # the patient's name with the image's character set, before another one is declared
    creator = _plain(creator).replace("=", "-")
    report = _report(prediction, images, series, creator)
    report.SpecificCharacterSet = "ISO_IR 192"
    report.SeriesDescription = _plain(description) or DESCRIPTION
    # UTC, as segmentations are written; fractions tell apart what was made within one second
    now = datetime.now(UTC)
    if creator and not by_hand(prediction):
        report.ParticipantSequence = [_requester(creator, now)]
    report.ContentDate = report.SeriesDate = report.InstanceCreationDate = now.strftime("%Y%m%d")
    report.ContentTime = report.SeriesTime = report.InstanceCreationTime = now.strftime("%H%M%S.%f")
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as folder:
            made = Path(folder) / "sr.dcm"
            report.save_as(made, write_like_original=False)
            os.replace(made, out)
    except OSError as error:
        raise FewshotError(
            f"{out} was not written ({error}); check the folder and the space in it."
        ) from error
    return str(report.SOPInstanceUID)


def _report(prediction: LandmarkPrediction, images: list[Dataset], series: Path, creator: str) -> Dataset:
    image = images[0]
    kind: type[ComprehensiveSR | Comprehensive3DSR]
    placed: Placed
    if image.get("FrameOfReferenceUID") and in_space(images):
        kind, placed = Comprehensive3DSR, _in_space(images)
    elif len(images) == 1 and int(image.get("NumberOfFrames") or 1) == 1:
        kind, placed = ComprehensiveSR, _in_pixels(prediction, image, series)
    else:
        raise FewshotError(
            f"No report was written: the image in {series} does not say where it lies in space (FrameOfReferenceUID, "
            "ImagePositionPatient); export the series again."
        )
    modality, uid = str(image.get("Modality", "")), str(image.SeriesInstanceUID)
    content = report_of(prediction, placed, modality=modality, image=uid, creator=creator)
    first = Dataset()  # without what is in the image: highdicom refuses values that many a scanner writes
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(first, keyword, image[keyword].value)
    for keyword in NEEDED:
        setattr(first, keyword, None)
    made = prediction.provenance
    try:
        report = kind(
            evidence=[first, *images[1:]],
            content=content,
            series_instance_uid=new_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=new_uid(),
            instance_number=1,
            is_complete=True,
            is_final=by_hand(prediction),  # otherwise preliminary: nobody has looked at it
            manufacturer=PROGRAM,
            manufacturer_model_name=PROGRAM,
            device_serial_number=str(made.get("model") or "unknown"),
            software_versions=str(made.get("fewshot") or "unknown"),
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    SCHEME, name="Landmarks as their users name them", responsible_organization=PROGRAM
                )
            ],
        )
        report.copy_patient_and_study_information(image)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FewshotError(
            f"No report was written: the headers of the image in {series} cannot be used "
            f"({type(error).__name__}: {error}); export the series again."
        ) from error
    return report


def _in_space(images: list[Dataset]) -> Placed:
    planes = Planes(images)

    def placed(point: Point) -> tuple[ImageRegion3D, SourceImageForMeasurement]:
        x, y, z = point
        lps = np.array([[-x, -y, z]])
        image = planes.nearest(lps[0])
        region = ImageRegion3D("POINT", lps, str(image.FrameOfReferenceUID))
        return region, SourceImageForMeasurement(image.SOPClassUID, image.SOPInstanceUID)

    return placed


def _in_pixels(prediction: LandmarkPrediction, image: Dataset, series: Path) -> Placed:
    size = int(image.Columns), int(image.Rows)
    if prediction.shape != (*size, 1):
        raise FewshotError(
            f"No report was written: the landmarks are of a picture of {prediction.shape[0]} x {prediction.shape[1]} "
            f"pixels, the one in {series} has {size[0]} x {size[1]}; find them in that one."
        )
    uids = image.SOPClassUID, image.SOPInstanceUID

    def placed(point: Point) -> tuple[ImageRegion, SourceImageForMeasurement]:
        # the corner of the first pixel is 0\0 and its centre 0.5\0.5 (PS3.3 C.18.6)
        column, row = np.clip(np.array(prediction.voxel(point)[:2]) + 0.5, 0, size)
        region = ImageRegion("POINT", np.array([[column, row]]), SourceImageForRegion(*uids))
        return region, SourceImageForMeasurement(*uids)

    return placed


def _requester(name: str, now: datetime) -> Dataset:
    """A person who took part without having observed anything."""
    person = Dataset()
    person.ParticipationType, person.ParticipationDateTime = "ENT", now.strftime("%Y%m%d%H%M%S")
    person.ObserverType, person.PersonName = "PSN", name
    person.PersonIdentificationCodeSequence, person.InstitutionCodeSequence = [], []
    person.InstitutionName = None
    return person


def _plain(text: str) -> str:
    """A text as DICOM can hold it: one line, without the characters that separate values, not too long."""
    return " ".join(text.replace("\\", "/").split())[:LONGEST].strip()
