"""Servers shared by the tests: each start takes as long as MONAI Label's imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
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
        end = time.monotonic() + 300
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
            timeout=300,
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
                timeout=300,
            )

    def train(self, model: str, **params: Any) -> list[dict[str, Any]]:
        """Train to the end; returns the statistics seen on the way."""
        self.client.train_start(model, params)
        return self.watch([model])[model]

    def train_all(self) -> dict[str, list[dict[str, Any]]]:
        """Train all that the app names to the end; returns the statistics of each seen on the way."""
        answer = requests.post(f"{self.url}/train/", json={}, timeout=300)
        assert answer.status_code == 200, answer.text
        return self.watch(list(answer.json()))

    def kill_training(self) -> None:
        """Stop the training (kill -9), and wait until its process is gone: until then it holds its locks."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        training = [child for child in children if "monailabel.interfaces.utils.app" in child.cmdline()]
        assert training
        assert self.client.train_stop()["status"] == "STOPPED"
        _, alive = psutil.wait_procs(training, timeout=300)
        assert not alive

    def watch(self, models: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Wait for the latest trainings, one of each model, and collect the statistics meanwhile."""
        seen: dict[str, list[dict[str, Any]]] = {model: [] for model in models}
        while True:
            tasks = requests.get(f"{self.url}/train/", params={"all": True}, timeout=300).json()[
                -len(models) :
            ]
            stats = self.client.info()["train_stats"]
            for model in models:
                seen[model].append(stats[model])
            if not any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks):
                assert all(task["status"] == "DONE" for task in tasks), tasks
                return seen
            time.sleep(0.1)


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> None:
    """Wait until the condition holds; a busy machine takes its time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server behind `fresh`, `annotated` and `trained`: one start for all."""
    root = tmp_path_factory.mktemp("shared")
    write_studies(root / "my studies")
    server = Server(root, root / "my studies", conf={"train_all": ",".join(TRAINED)})
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture
def fresh(shared: Server) -> Server:
    """A server that nobody has submitted anything to; tests must leave it so."""
    assert not list((shared.studies / "labels").rglob("*.nii.gz")), "these come first"
    return shared


@pytest.fixture(scope="session")
def annotated(shared: Server, truth: dict[str, np.ndarray]) -> Server:
    """The server after study ct_0 was labelled on a few slices, after an empty first segment."""
    answer = shared.submit("ct_0", partial(truth["ct_0"], first=2), ["Segment_1", *LABELS])
    assert answer.status_code == 200, answer.text
    return shared


@pytest.fixture(scope="session")
def trained(annotated: Server) -> Server:
    """The same server after *train all*, here of `TRAINED`; each costs the start of a process."""
    annotated.training_seen = annotated.train_all()  # type: ignore[attr-defined]
    return annotated
