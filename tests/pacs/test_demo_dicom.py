"""`make pacs`, which waits for people; the loop that plays by itself, `fewshot demo --dicom`, is part of `.ci/run`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest
import requests

from tests.programs import program

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

pytestmark = [pytest.mark.server, pytest.mark.pacs]


@pytest.fixture(autouse=True)
def installed() -> None:
    program("Orthanc", package="orthanc orthanc-dicomweb")


SECONDS = 300.0


def series(dicomweb: str, modality: str) -> list[dict[str, Any]]:
    """What the PACS says about its series of a modality; [] also where it answers with no content."""
    fields = ["SeriesDescription", "PatientID"]
    found = requests.get(
        f"{dicomweb}/series", params={"Modality": modality, "includefield": fields}, timeout=30
    )
    return found.json() if found.content else []


def value(dataset: dict[str, Any], tag: str) -> Any:
    return dataset[tag]["Value"][0]


def silent(url: str) -> bool:
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError:
        return True
    return False


def test_make_pacs_waits_for_the_user_and_a_signal_ends_all(tmp_path):
    said = tmp_path / "said.txt"
    command = [sys.executable, "-m", "fewshot.cli", "demo", str(tmp_path / "demo")]
    with said.open("wb") as file:
        demo = subprocess.Popen([*command, "--dicom", "--by-hand", "--studies", "2"], stderr=file)
    try:
        end = time.monotonic() + SECONDS
        while not re.search(r"Orthanc +http.*\n", text := said.read_text("utf-8")):
            assert demo.poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.2)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 2
        link = re.search(r"(http://\S+)/ohif/monai-label\?StudyInstanceUIDs=(\S+)", text)
        dicomweb = re.search(r"DICOMweb at (\S+)", text)
        server, study = link.groups()
        images = series(dicomweb[1], "CT")
        assert {value(each, "00100020") for each in images} == {"phantom_00", "phantom_01"}
        assert study in {value(each, "0020000D") for each in images}
        assert series(dicomweb[1], "SEG") == []
        assert requests.get(link[0], timeout=30).ok
        info = requests.get(f"{server}/info/", timeout=30).json()["datastore"]
        assert (info["total"], info["completed"]) == (2, 0)
        sample = requests.post(f"{server}/activelearning/first", json={}, timeout=30).json()["id"]
        assert sample in {value(each, "0020000E") for each in images}

        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        assert silent(server)
        assert silent(dicomweb[1])
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(60)
