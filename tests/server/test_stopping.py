"""The server ends in seconds, with all that it has started, and what it leaves behind is whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
from filelock import FileLock

from fewshot.model import load_model
from fewshot.phantoms import make_study
from lib.background import DESERTED, SERVER, STOPPED
from lib.files import read_json
from tests.server.conftest import APP, FAST, LABELS, REPOSITORY, Server, partial, wait_for, write_studies

pytestmark = pytest.mark.server
ENDLESS = {"max_epochs": 1_000_000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, truth: dict[str, Any]) -> Iterator[Server]:
    """One with an adapter, and a study whose inference takes seconds."""
    root = tmp_path_factory.mktemp("stopping")
    write_studies(root / "studies", count=2)
    volume, _ = make_study(9, shape=(160, 130, 80))
    image = nib.Nifti1Image(volume.array.astype(np.int16), volume.affine)
    nib.save(image, root / "studies" / "large.nii.gz")
    server = Server(root, root / "studies", conf={"train_all": "fewshot_contrastive,fewshot_classification"})
    try:
        server.wait()
        assert server.submit("ct_0", partial(truth["ct_0"]), list(LABELS)).status_code == 200
        # in the server itself: a process of its own would take ten seconds more to start
        done = requests.post(
            f"{server.url}/train/fewshot", params={"run_sync": True}, json={"max_epochs": 1}, timeout=300
        )
        assert done.status_code == 200, done.text
        yield server
    finally:
        server.stop()


def stats(server: Server, model: str) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return read_json(server.workspace / "stats" / f"{model}.json")
    return {}


def processes(server: Server) -> dict[str, psutil.Process]:
    """The server's background processes by method."""
    found = {}
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            words = child.cmdline()
            if "monailabel.interfaces.utils.app" in words:
                found[words[words.index("-r") - 1]] = child
    return found


def unfinished_request(server: Server) -> socket.socket:
    """A viewer whose connection is so slow that its request never ends."""
    slow = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    slow.sendall(
        b"PUT /datastore/label?image=ct_1 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    return slow


def assert_whole(server: Server) -> None:
    """Every file that the server or what it started may have been writing can be read, and none is half done."""
    for file in (*server.workspace.rglob("*.json"), server.studies / "datastore_v2.json"):
        json.loads(file.read_text())
    for file in server.workspace.rglob("adapters/*/*.safetensors"):
        load_model(file)
    for file in server.studies.rglob("labels/*/*.nii.gz"):
        assert np.asarray(nib.load(file).dataobj).any()
    assert not [path for path in server.workspace.rglob("*") if path.suffix in (".tmp", ".part")]


def test_sigterm_ends_everything_within_ten_seconds(server: Server, truth: dict[str, Any]):
    # two trainings, of which one waits, a batch inference, an inference, and somebody with a bad connection
    started = requests.post(
        f"{server.url}/train/", json=dict.fromkeys(("fewshot_contrastive",), ENDLESS), timeout=300
    )
    assert list(started.json()) == ["fewshot_contrastive", "fewshot_classification"]
    wait_for(lambda: stats(server, "fewshot_contrastive").get("epoch", 0) > 3)
    answer = requests.post(f"{server.url}/batch/infer/fewshot_basic", params={"images": "all"}, timeout=300)
    assert answer.status_code == 200, answer.text
    wait_for(lambda: set(processes(server)) == {"train", "batch_infer"})
    begun = processes(server)

    def infer() -> None:
        with suppress(requests.RequestException):
            server.infer("fewshot", "large")

    inference = threading.Thread(target=infer)
    inference.start()
    slow = unfinished_request(server)
    time.sleep(0.5)

    before = time.monotonic()
    server.process.terminate()
    assert server.process.wait(15) == -signal.SIGTERM
    took = time.monotonic() - before
    assert took < 10
    inference.join()
    slow.close()

    assert not [process for process in begun.values() if process.is_running()]
    with FileLock(server.workspace / "training.lock", timeout=0):
        pass
    ended = stats(server, "fewshot_contrastive")
    assert ended["error"] == STOPPED
    assert "total_time" in ended
    assert not {"stage", "current_time"} & set(ended)
    assert not stats(server, "fewshot_classification"), "it waited, and never begins"
    assert "Traceback" not in server.log.read_text()
    assert len(list(server.workspace.glob("adapters/fewshot/*.safetensors"))) == 1
    assert not list(server.workspace.glob("adapters/fewshot_contrastive/*"))
    assert_whole(server)


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
child.wait()
"""


def test_a_training_ends_when_its_server_is_killed(server: Server, truth: dict[str, Any]):
    """A process of a training as MONAI Label starts it, under a parent that can be killed without ado."""
    if server.process.poll() is None:
        pytest.skip("this comes after the end of the server, whose studies it uses")
    request = {"model": "fewshot_contrastive", **ENDLESS}
    command = [
        sys.executable,
        "-m",
        "monailabel.interfaces.utils.app",
        "-m",
        "train",
        "-r",
        json.dumps(request),
    ]
    environment = {
        **os.environ,
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(server.studies),
        "MONAI_LABEL_APP_CONF": json.dumps({**FAST, "workspace": str(server.workspace)}),
        "FEWSHOT_BANK": str(server.root / "bank"),
        "PYTHONPATH": str(APP),
        "OMP_NUM_THREADS": "1",
    }
    # the parent learns its own number only when it runs, so it is told through a shell-less exec of itself
    start = f"import os, sys; os.environ[{SERVER!r}] = str(os.getpid())\n" + PARENT
    with open(server.root / "training.log", "wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", start, *command],
            env=environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert parent.stdout
    training = psutil.Process(int(parent.stdout.readline()))
    try:
        wait_for(lambda: not stats(server, "fewshot_contrastive").get("error"))
        wait_for(lambda: stats(server, "fewshot_contrastive").get("epoch", 0) > 3)
        parent.kill()
        parent.wait()
        wait_for(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE, seconds=15)
    finally:
        with suppress(psutil.NoSuchProcess):
            training.kill()
    ended = stats(server, "fewshot_contrastive")
    assert ended["error"] == DESERTED
    assert "total_time" in ended
    last = Path(server.root / "training.log").read_text().strip().splitlines()[-1]
    assert last == DESERTED
    assert_whole(server)
