"""A PACS with made-up studies and the server beside it for each file of tests, and one browser for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fewshot.demo.orthanc import Orthanc
from fewshot.landmarks.template import Point
from fewshot.phantoms import ORGANS, make_phantom
from fewshot.volumes import Volume
from fewshot.volumes.dicom_writing import new_uid, write_dicom
from tests.programs import program
from tests.server.conftest import Server
from tests.viewer.ohif import Ohif, chromium, page_of

SHOTS = "FEWSHOT_TESTS_SCREENSHOTS"
"""Folder that keeps the screenshots, such as docs/tutorials/ohif; a temporary one by default."""


@dataclass
class Study:
    """A study in the PACS, and what is true of it."""

    study: str
    series: str
    volume: Volume
    truth: np.ndarray
    landmarks: dict[str, Point]

    def of(self, organ: str) -> np.ndarray:
        return self.truth == ORGANS[organ]

    def busiest(self, *organs: str) -> int:
        """The slice that shows most of the organ of which there is least."""
        areas = [self.of(organ).sum((0, 1)) for organ in organs]
        return int(np.min(areas, axis=0).argmax())


@dataclass
class Pacs:
    """Orthanc and what was uploaded."""

    orthanc: Orthanc
    studies: list[Study]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """Orthanc with three studies, the last with JPEG 2000 pixels."""
    program("Orthanc", package="orthanc orthanc-dicomweb")
    root = tmp_path_factory.mktemp("pacs")
    studies = []
    for seed in range(3):
        made = make_phantom(seed, shape=(96, 80, 40), orientation="LPS")
        study = new_uid()
        series = write_dicom(
            made.volume,
            root / "files" / str(seed),
            patient=f"Phantom-{seed}",
            description="abdomen",
            study=study,
            compress=seed == 2,
        )
        studies.append(Study(study, series, made.volume, made.labels, made.landmarks))
    with Orthanc(root / "orthanc") as orthanc:
        orthanc.wait_until_ready()
        orthanc.upload(root / "files")
        yield Pacs(orthanc, studies)


@pytest.fixture(scope="module")
def conf() -> dict[str, str]:
    """What the server is told besides; a file may have a fixture of its own."""
    return {"train_all": "fewshot"}


@pytest.fixture(scope="module")
def server(pacs: Pacs, conf: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The MONAI Label server on the PACS, with the backbone that comes with the project."""
    root = tmp_path_factory.mktemp("server")
    server = Server(
        root,
        pacs.orthanc.dicomweb,  # type: ignore[arg-type]
        conf={"backbone": "embedded", "max_epochs": "20", "poll": "2", **conf},
        environment={"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache")},
    )
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium(program("chromium", "chromium-browser", "google-chrome", package="chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def ohif(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ohif]:
    """An annotator's page."""
    shots = Path(os.environ.get(SHOTS) or tmp_path_factory.mktemp("shots"))
    with page_of(browser) as page:
        yield Ohif(page, server.url, shots)
