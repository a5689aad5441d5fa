"""Servers shared by the tests: each start takes as long as MONAI Label's imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.client import MONAILabelClient

from fewshot.phantoms import ORGANS, make_study

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "apps" / "fewshot"
SHAPE = (48, 40, 16)
LABELS = ("liver", "spleen")
TRAINED = ("fewshot", "fewshot_contrastive")
FAST = {"backbone": "random-tiny", "max_epochs": "6"}


class Server:
    """A running server and a client as Slicer has one.

    Args:
        root: folder for the log, the bank and sessions.
        studies: what is served.
        conf: --conf keys and values.
        command: how it is started, without the arguments; `python -m monailabel.main` by default.
        cwd: where it is started.
        arguments: `--app` and `--studies` as typed; absolute paths by default.
    """

    def __init__(
        self,
        root: Path,
        studies: Path,
        *,
        conf: dict[str, str] | None = None,
        command: list[str] | None = None,
        cwd: Path | None = None,
        arguments: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.root, self.studies, self.workspace = root, studies, root / "workspace"
        self.url = f"http://127.0.0.1:{port}"
        self.log = root / f"server-{port}.log"
        line = command or [sys.executable, "-m", "monailabel.main"]
        line += ["start_server", *(arguments or ["--app", str(APP), "--studies", str(studies)])]
        line += ["--host", "127.0.0.1", "--port", str(port)]
        for key, value in {**FAST, "workspace": str(self.workspace), **(conf or {})}.items():
            line += ["--conf", key, value]
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                line,
                cwd=cwd or root,
                env={
                    **kept,
                    "FEWSHOT_BANK": str(root / "bank"),
                    "MONAI_LABEL_SESSION_PATH": str(root / "sessions"),
                    "OMP_NUM_THREADS": "1",
                    **(environment or {}),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = MONAILabelClient(self.url, str(root), "annotator")

    def wait(self) -> Server:
        """Wait until the server answers."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                requests.get(f"{self.url}/info/", timeout=10).raise_for_status()
                return self
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> None:
        """Kill the server and what it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def infer(self, model: str, image: str, **params: Any) -> requests.Response:
        """POST /infer without the client's handling of errors."""
        return requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image},
            data={"params": json.dumps(params)},
            timeout=120,
        )

    def segment(self, model: str, image: str, **params: Any) -> tuple[Path, dict[str, Any]]:
        """What Slicer does: the result's file and parameters."""
        file, result = self.client.infer(
            model, image, {"result_extension": ".nrrd", "result_dtype": "uint8", **params}
        )
        return Path(file), result

    def submit(
        self, image: str, labels: np.ndarray, names: list[str] | None, tag: str = "final", affine: Any = None
    ) -> requests.Response:
        """PUT /datastore/label as Slicer does, with `idx` counting segments that were not sent."""
        like = nib.load(self.studies / f"{image}.nii.gz") if affine is None else None
        file = self.root / "label.nii.gz"
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), like.affine if like else affine), file)
        return self.submit_file(image, file, names, tag)

    def submit_file(
        self, image: str, file: Path, names: list[str] | None, tag: str = "final"
    ) -> requests.Response:
        """PUT /datastore/label with any file."""
        info = [{"name": name, "idx": 3 * position + 7} for position, name in enumerate(names or [])]
        with open(file, "rb") as content:
            return requests.put(
                f"{self.url}/datastore/label",
                params={"image": image, "tag": tag},
                files={"label": (file.name, content)},
                data={"params": json.dumps({"label_info": info} if names else {})},
                timeout=120,
            )

    def train(self, model: str, **params: Any) -> list[dict[str, Any]]:
        """Train to the end; returns the statistics seen on the way."""
        self.client.train_start(model, params)
        seen = []
        while True:
            status = self.client.train_status()
            seen.append(self.client.info()["train_stats"][model])
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                assert status["status"] == "DONE", status
                return seen
            time.sleep(0.1)


def write_studies(folder: Path, count: int = 4) -> dict[str, np.ndarray]:
    """Made-up studies ct_0, ct_1, ...; returns their true labels."""
    folder.mkdir(parents=True)
    truth = {}
    for seed in range(count):
        volume, labels = make_study(seed, shape=SHAPE)
        nib.save(nib.Nifti1Image(volume.array.astype(np.int16), volume.affine), folder / f"ct_{seed}.nii.gz")
        truth[f"ct_{seed}"] = labels
    return truth


def partial(truth: np.ndarray, *, first: int = 1, slices: int = 4) -> np.ndarray:
    """LABELS on a few slices only, numbered from `first` on: what an annotator draws."""
    both = [
        index
        for index in range(truth.shape[2])
        if all((truth[:, :, index] == ORGANS[name]).any() for name in LABELS)
    ][:slices]
    assert len(both) == slices
    drawn = np.zeros(truth.shape, np.uint8)
    for number, name in enumerate(LABELS, start=first):
        drawn[:, :, both] += (number * (truth[:, :, both] == ORGANS[name])).astype(np.uint8)
    return drawn


def sentence(answer: requests.Response, status: int) -> str:
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert len(detail.split()) > 2
    assert "\n" not in detail
    return detail


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The true labels of the studies that every server serves."""
    return {f"ct_{seed}": make_study(seed, shape=SHAPE)[1] for seed in range(4)}


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has submitted anything to; tests must leave it so."""
    root = tmp_path_factory.mktemp("fresh")
    write_studies(root / "studies")
    server = Server(root, root / "studies")
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose study ct_0 was labelled on a few slices, after an empty first segment."""
    root = tmp_path_factory.mktemp("annotated")
    truth = write_studies(root / "my studies")
    server = Server(root, root / "my studies")
    try:
        server.wait()
        answer = server.submit("ct_0", partial(truth["ct_0"], first=2), ["Segment_1", *LABELS])
        assert answer.status_code == 200, answer.text
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def trained(annotated: Server) -> Server:
    """The same server after the trainings of `TRAINED`; each costs the start of a process."""
    annotated.training_seen = {  # type: ignore[attr-defined]
        model: annotated.train(model) for model in TRAINED
    }
    return annotated
