"""Landmarks on their way to a PACS: as structured reports (SR)."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pydicom
from dicomweb_client import DICOMwebClient

from fewshot.landmarks.result import LandmarkPrediction
from lib.pacs.errors import PacsError, told
from lib.pacs.sr_writing import DESCRIPTION, write_sr

logger = logging.getLogger(__name__)

REASON = "FailureReason"


@dataclass(frozen=True)
class StoredSr:
    """Where a report is in the PACS: StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID."""

    study: str
    series: str
    instance: str


def submit_sr(
    client: DICOMwebClient,
    prediction: LandmarkPrediction,
    series: Path,
    *,
    description: str = DESCRIPTION,
    creator: str = "",
) -> StoredSr:
    """Store the landmarks of an image in the PACS, in the image's study, as a report in a series of its own.

    What is in a PACS does not change: a second report of an image is another series under the same description, and
    the first one stays.

    Args:
        client: stores in the PACS.
        prediction: what was found in the image.
        series: folder with the DICOM files of the image.
        description: of `write_sr`.
        creator: of `write_sr`.

    Raises:
        FewshotError: if it cannot be written as a report.
        PacsError: if the PACS does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="sr-") as folder:
        out = Path(folder) / "sr.dcm"
        write_sr(prediction, series, out, description=description, creator=creator)
        report = pydicom.dcmread(out)
    url = str(client.base_url)
    with told(url, "the storage of a report", query=True):
        answer = client.store_instances([report])
    if failed := answer.get("FailedSOPSequence"):
        reason = f" (reason {failed[0][REASON].value:#06x})" if REASON in failed[0] else ""
        raise PacsError(f"The PACS {url} refused the report{reason}: look into its log.")
    stored = StoredSr(str(report.StudyInstanceUID), str(report.SeriesInstanceUID), str(report.SOPInstanceUID))
    logger.info("Stored the SR series %s on landmarks", stored.series)
    return stored
