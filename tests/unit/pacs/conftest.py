"""A PACS in this process, and a project on it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fewshot.volumes import read_volume, write_labels
from lib.configs.registry import CONFIGS
from lib.configs.settings import AppSettings
from lib.pacs.client import make_client
from lib.pacs.datastore import Pacs
from lib.project import Project
from tests.pacs.fake import FakePacs
from tests.pacs.making import make_seg, write_image

DRAWN = {1: "liver", 2: "spleen"}


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def fake():
    with FakePacs() as fake:
        yield fake


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str, pydicom.Dataset]:
    """A CT's folder and UID, and a SEG of it by a person."""
    folder = tmp_path_factory.mktemp("made")
    uid = write_image(folder / "ct")
    return folder / "ct", uid, make_seg(folder / "ct", folder / "seg.dcm", DRAWN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A CT's files."""
    folder = tmp_path_factory.mktemp("made") / "ct"
    write_image(folder)
    return folder


@pytest.fixture(scope="module")
def uid(folder: Path) -> str:
    return pydicom.dcmread(folder / "0001.dcm").SeriesInstanceUID


@pytest.fixture(scope="module")
def seg(folder: Path) -> pydicom.Dataset:
    """A person's label of it."""
    return make_seg(folder, folder.parent / "seg.dcm", DRAWN)


@pytest.fixture
def open_pacs(fake: FakePacs, tmp_path: Path):
    """Opens a project on the PACS, as the app does, and asks once."""

    def open_with(*, ask: bool = True, **options) -> tuple[Project, Pacs]:
        conf = {"backbone": "random-tiny", "bank": str(tmp_path / "bank")}
        settings = AppSettings.parse(conf, models=tuple(CONFIGS))
        project = Project.open(str(tmp_path / "app"), fake.url, settings)
        pacs = Pacs(
            make_client(fake.url, query_seconds=2),
            cache=tmp_path / "cache",
            check=project.check_label,
            names=project.label_names,
            **options,
        )
        project.datastore = pacs
        if ask:
            pacs.refresh()
        return project, pacs

    return open_with


def submit(pacs: Pacs, uid: str, labels: np.ndarray, names: list[str], tag: str = "final", **params) -> None:
    """Save a label as Slicer does: `idx` also counts segments that were not sent."""
    file = Path(pacs._datastore_path) / "sent.nii.gz"
    write_labels(file, labels, read_volume(pacs.get_image_uri(uid)))
    info = {"label_info": [{"name": name, "idx": 9 + 2 * at} for at, name in enumerate(names)], **params}
    pacs.save_label(uid, str(file), tag, info)


def stored(fake: FakePacs) -> list[pydicom.Dataset]:
    return [file for held in fake.files.values() for file in held.values() if file.Modality == "SEG"]
