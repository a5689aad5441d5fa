"""Labels on their way to a PACS: as DICOM segmentations (SEG), or kept here if the PACS does not take them."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicomweb_client import DICOMwebClient

from lib.files import write_json
from lib.pacs.errors import PacsError, told
from lib.pacs.seg_reading import SegHeader
from lib.pacs.seg_writing import write_seg
from lib.templates import by_model

logger = logging.getLogger(__name__)

DESCRIPTION = "Submitted to MONAI Label"
REASON = "FailureReason"


class Submitter:
    """Writes SEGs and stores them.

    Args:
        client: stores in the PACS.
        unsent: receives labels that could not be stored; made if needed.
    """

    def __init__(self, client: DICOMwebClient, unsent: Path) -> None:
        self._client, self._unsent = client, unsent

    def submit(
        self, label: Path, names: Mapping[int, str | None], info: Mapping[str, Any], image: Path, dicom: Path
    ) -> SegHeader:
        """Store a label map as a SEG of its own.

        Args:
            label: on the image's grid.
            names: voxel value -> label name, None for a segment that is no label and is left out.
            info: the submission's parameters.
            image: the image as NIfTI.
            dicom: folder of the image's DICOM files.

        Raises:
            FewshotError: if it cannot be written as a SEG.
            PacsError: if the PACS does not take it.
        """
        from fewshot.volumes import read_labels, read_volume

        volume = read_volume(image)
        labels = read_labels(label, volume)
        labels[np.isin(labels, [value for value, name in names.items() if not name])] = 0
        model = str(info["model"]) if by_model(info) else ""
        with tempfile.TemporaryDirectory(prefix="seg-") as folder:
            out = Path(folder) / "seg.dcm"
            header = write_seg(
                labels,
                {value: name for value, name in names.items() if name},
                dicom,
                volume,
                out,
                description=model or DESCRIPTION,
                algorithm="AUTOMATIC" if model else "MANUAL",
                algorithm_name=model,
                creator=str(info.get("client_id") or info.get("user") or ""),
            )
            self._store(pydicom.dcmread(out))
        logger.info("Stored the SEG series %s of the image %s", header.series, header.image_series)
        return header

    def keep(self, image_id: str, label: Path, info: Mapping[str, Any]) -> Path:
        """Keep a label that the PACS did not take, with its parameters; returns where."""
        self._unsent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{image_id}-", dir=self._unsent))
        file = Path(shutil.copy(label, folder / f"label{''.join(label.suffixes)}"))
        write_json(folder / "params.json", dict(info))
        return file

    def unsent(self) -> int:
        """How many labels the PACS did not take, in all the time."""
        return sum(1 for _ in self._unsent.glob("*/params.json"))

    def _store(self, dataset: pydicom.Dataset) -> None:
        url = str(self._client.base_url)
        with told(url, "the storage of a label", query=True):
            answer = self._client.store_instances([dataset])
        if failed := answer.get("FailedSOPSequence"):
            reason = f" (reason {failed[0][REASON].value:#06x})" if REASON in failed[0] else ""
            raise PacsError(f"The PACS {url} refused the label{reason}: look into its log.")
