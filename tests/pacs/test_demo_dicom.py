"""The demo beside a real Orthanc, and `make pacs`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from fewshot.demo import loop, run_demo
from fewshot.demo.annotator import Annotator
from fewshot.demo.orthanc import Orthanc
from fewshot.demo.server import Server
from fewshot.phantoms import ORGANS
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


def test_the_loop_over_dicomweb_is_measured_and_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Annotator, "TRAINED", ("fewshot",))
    monkeypatch.setattr(Annotator, "MODELS", {"fewshot": "auto"})
    stayed: list[str] = []

    def look(server: Server, orthanc: Orthanc, *, study: str, trained: bool, pictures: Path) -> None:
        images = {value(each, "0020000D"): value(each, "0020000E") for each in series(orthanc.dicomweb, "CT")}
        assert len(images) == 2
        (seg,) = series(orthanc.dicomweb, "SEG")
        assert value(seg, "0020000D") in set(images) - {study}
        metadata = requests.get(
            f"{orthanc.dicomweb}/studies/{value(seg, '0020000D')}/series/{value(seg, '0020000E')}/metadata",
            timeout=30,
        ).json()[0]
        segments = metadata["00620002"]["Value"]
        assert {value(each, "00620005") for each in segments} == set(ORGANS)
        answer = requests.post(
            f"{server.url}/infer/fewshot", params={"image": images[study], "output": "json"}, timeout=SECONDS
        )
        assert answer.ok
        assert trained
        assert (pictures / "phantom_00.png").exists() or (pictures / "phantom_01.png").exists()
        stayed.extend([server.url, orthanc.url])

    monkeypatch.setattr(loop, "keep_serving", look)
    code = run_demo(tmp_path / "demo", dicom=True, serve=True, studies=2)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "2 studies sent to Orthanc" in said.err
    assert "spleen" in said.out
    found = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert found["summary"]["auto"]["mean"]["dice"] > loop.FLOOR
    assert {row["case"] for row in found["rows"]} < {"phantom_00", "phantom_01"}
    assert all(silent(url) for url in stayed)
    assert len(stayed) == 2


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
