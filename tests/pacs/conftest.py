"""One Orthanc for all tests here; each brings patients of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fewshot.demo.orthanc import Orthanc
from lib.pacs.client import make_client
from lib.pacs.datastore import Pacs
from lib.templates import voxel_names
from tests.programs import program


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A running Orthanc."""
    program("Orthanc", package="orthanc orthanc-dicomweb")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        running.wait_until_ready()
        yield running


def delete(orthanc: Orthanc, uid: str) -> None:
    """Delete a series or study."""
    for found in requests.post(f"{orthanc.url}/tools/lookup", data=uid, timeout=30).json():
        requests.delete(f"{orthanc.url}{found['Path']}", timeout=30).raise_for_status()


@pytest.fixture
def pacs(orthanc: Orthanc, tmp_path: Path) -> Pacs:
    """Orthanc as datastore, which has not been asked yet; every label is taken."""
    from lib.studies import StudiesDescription

    return Pacs(
        make_client(orthanc.dicomweb),
        cache=tmp_path / "cache",
        check=lambda *_: None,
        names=lambda info, image: voxel_names(info, image, StudiesDescription(), {}),
    )
