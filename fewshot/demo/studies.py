"""The demo's studies as DICOM, in a PACS of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fewshot.demo.orthanc import Orthanc
from fewshot.phantoms import make_study
from fewshot.volumes.dicom_writing import new_uid, write_dicom

AXIAL = "LPS"
"""The voxel order of axial slices as scanners store them: rows from front to back, slices from feet to head."""


class Served(NamedTuple):
    """How a study is found on the server.

    Attributes:
        image: the server's id of its image: a file's name, or the UID of a DICOM series.
        study: UID of the DICOM study, empty where a folder is served.
    """

    image: str
    study: str = ""


def send_studies(
    orthanc: Orthanc, folder: Path, count: int, *, seed: int, show: Callable[[int, int], None]
) -> dict[str, Served]:
    """Make up the studies of `DemoFolder.make_studies` again, as DICOM, and send them to a PACS.

    Args:
        orthanc: the PACS.
        folder: receives one folder of DICOM files per study.
        count: how many studies.
        seed: the first of them.
        show: called with the studies done and their number.

    Raises:
        FewshotError: if the PACS refuses a file.

    Returns:
        Case name -> how the server finds it.
    """
    served: dict[str, Served] = {}
    for number in range(seed, seed + count):
        show(number - seed, count)
        volume, _ = make_study(number, orientation=AXIAL)
        study = new_uid()
        series = write_dicom(
            volume, folder / volume.name, patient=volume.name, description="made-up abdomen", study=study
        )
        orthanc.upload(folder / volume.name)
        served[volume.name] = Served(series, study)
    return served
