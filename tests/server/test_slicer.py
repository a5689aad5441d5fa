"""3D Slicer's whole loop on a folder of studies, on a server that finds nothing in any network."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewshot.phantoms import ORGANS
from tests.server.conftest import Server, write_studies
from tests.server.slicer import Slicer, play

pytestmark = pytest.mark.server

GUARD = """
import os, socket

def local(address):
    return not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1", "localhost", "")

def note(*words):
    with open(os.environ["FEWSHOT_TEST_NETWORK"], "a") as file:
        print(os.getpid(), *words, file=file)

def refuse(*address):
    note("asked for", *address)
    raise OSError(101, "Network is unreachable")

connect, find = socket.socket.connect, socket.getaddrinfo
socket.socket.connect = lambda self, address: connect(self, address) if local(address) else refuse(address)
socket.getaddrinfo = lambda host, *rest, **more: (
    find(host, *rest, **more) if host is None or local((host,)) else refuse(host, *rest)
)
note("guarded")
"""
"""Loaded by every Python process of the server: what it would look for on the internet is written down and refused."""


def test_the_whole_loop_without_any_network(tmp_path: Path):
    truth = write_studies(tmp_path / "studies", count=3)
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    network = tmp_path / "network.txt"
    server = Server(
        tmp_path,
        tmp_path / "studies",
        environment={"PYTHONPATH": str(guard), "FEWSHOT_TEST_NETWORK": str(network)},
    )
    try:
        server.wait()
        masks = {
            image: {organ: labels == value for organ, value in ORGANS.items()}
            for image, labels in truth.items()
        }
        slicer = Slicer(server.url, tmp_path / "slicer")
        play(slicer, masks)
        lines = network.read_text().splitlines()
        assert len(lines) >= 3, "the server and two trainings"
        assert all(line.endswith(" guarded") for line in lines), lines
        assert_on_disk(server.studies, masks)
    finally:
        server.stop()


def assert_on_disk(studies: Path, truth: dict[str, dict[str, np.ndarray]]) -> None:
    """Label maps and their names are files that anything else can read."""
    objects = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    found = 0
    for image, entry in objects.items():
        if "final" not in entry["labels"]:
            continue
        found += 1
        label = nib.load(studies / "labels" / "final" / f"{image}.nii.gz")
        np.testing.assert_allclose(label.affine, nib.load(studies / f"{image}.nii.gz").affine, atol=1e-5)
        names = [told["name"] for told in entry["labels"]["final"]["info"]["label_info"]]
        assert "background" not in names
        values = np.asarray(label.dataobj)
        for value, name in enumerate(names, start=1):
            expected = truth[image].get(name, np.zeros(values.shape, bool))
            np.testing.assert_array_equal(values == value, expected)
    assert found == 2
