"""How long the server takes to answer while it computes: `python -m benchmarks.responsiveness [--requests 150]`.

A server with made-up studies is asked for /info/, /logs/ and an image by one client, first while it is idle, then
while it infers one study after the other, and while it trains. The table says the median and the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from rich.console import Console
from rich.table import Table

from fewshot.phantoms import ORGANS, make_study

ROOT = Path(__file__).parents[1]
SHAPE = (64, 56, 24)
TIMES = (4, 4, 2)
"""Drawn small, because large ones take long to draw, and enlarged so often along each axis."""

STUDIES = 6
TARGET = 0.1
PATHS = {"info": "info/", "logs": "logs/?text=true", "image": "datastore/image?image=ct_0"}
MODEL = "fewshot"


def main() -> None:
    """Measure, print one table, write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=150, help="of each kind in each state")
    parser.add_argument("--threads", help="OMP_NUM_THREADS of the server; the server's own choice by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments.requests, arguments.threads)
    table = Table("server", "request", "median ms", "95th ms", "longest ms", "under 100 ms")
    rows = []
    for (state, name), times in measured.items():
        middle, late = statistics.median(times), float(np.percentile(times, 95))
        met = late < TARGET
        cells = [f"{1000 * value:.0f}" for value in (middle, late, max(times))]
        table.add_row(state, name, *cells, "yes" if met else "NO")
        rows.append({"server": state, "request": name, "median": middle, "p95": late, "longest": max(times)})
    Console(width=100).print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(folder: Path, count: int, threads: str | None) -> dict[tuple[str, str], list[float]]:
    """Seconds of every request, by the server's state and the kind of request."""
    write_studies(folder / "studies")
    measured: dict[tuple[str, str], list[float]] = {}
    with serving(folder, threads) as url:
        submit(url, folder)
        train(url)
        wait(lambda: not training(url))
        states: dict[str, Callable[[threading.Event], None]] = {
            "idle": threading.Event.wait,
            "infers": lambda stop: infer(url, stop),
            "trains": lambda stop: train_on(url, stop),
        }
        for state, work in states.items():
            stop = threading.Event()
            busy = threading.Thread(target=work, args=(stop,))
            busy.start()
            time.sleep(2)
            for _ in range(count):
                for name, path in PATHS.items():
                    start = time.perf_counter()
                    requests.get(f"{url}/{path}", timeout=60).raise_for_status()
                    measured.setdefault((state, name), []).append(time.perf_counter() - start)
                    time.sleep(0.05)
            stop.set()
            busy.join()
    return measured


def write_studies(folder: Path) -> None:
    """Made-up studies ct_0, ct_1, ..., and the label of the first."""
    folder.mkdir()
    for seed in range(STUDIES):
        volume, labels = make_study(seed, shape=SHAPE)
        affine = volume.affine @ np.diag([*(1 / times for times in TIMES), 1])
        image = np.kron(volume.array.astype(np.int16), np.ones(TIMES, np.int16))
        nib.save(nib.Nifti1Image(image, affine), folder / f"ct_{seed}.nii.gz")
        if seed == 0:
            drawn = (labels == ORGANS["liver"]) + 2 * (labels == ORGANS["spleen"])
            label = np.kron(drawn.astype(np.uint8), np.ones(TIMES, np.uint8))
            nib.save(nib.Nifti1Image(label, affine), folder.parent / "label.nii.gz")


@contextmanager
def serving(folder: Path, threads: str | None) -> Iterator[str]:
    """A server of these studies; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "FEWSHOT_BANK": str(folder / "bank"),
        "PYTHONPATH": "",
        **({"OMP_NUM_THREADS": threads} if threads else {}),
    }
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps/fewshot")]
    command += ["--studies", str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--conf", "workspace", str(folder / "workspace")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: answers(url) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    """Whether the server is there."""
    try:
        return requests.get(f"{url}/info/", timeout=5).ok
    except requests.RequestException:
        return False


def wait(condition: Callable[[], bool], seconds: float = 900) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)


def submit(url: str, folder: Path) -> None:
    """Submit the label of the first study."""
    names = {"label_info": [{"name": "liver"}, {"name": "spleen"}]}
    with (folder / "label.nii.gz").open("rb") as file:
        requests.put(
            f"{url}/datastore/label",
            params={"image": "ct_0"},
            files={"label": ("label.nii.gz", file)},
            data={"params": json.dumps(names)},
            timeout=600,
        ).raise_for_status()


def train(url: str) -> None:
    """Start a training."""
    requests.post(f"{url}/train/{MODEL}", json={}, timeout=600).raise_for_status()


def training(url: str) -> bool:
    """Whether a training waits or runs."""
    status = requests.get(f"{url}/train/", timeout=60).json()["status"]
    if status == "ERROR":
        raise RuntimeError("The training failed.")
    return status in ("SUBMITTED", "RUNNING")


def infer(url: str, stop: threading.Event) -> None:
    """Infer one study after the other; the first time, features have to be computed."""
    while not stop.is_set():
        for number in range(STUDIES):
            if not stop.is_set():
                requests.post(
                    f"{url}/infer/{MODEL}",
                    params={"image": f"ct_{number}", "output": "image"},
                    data={"params": json.dumps({"result_extension": ".nrrd"})},
                    timeout=900,
                ).raise_for_status()


def train_on(url: str, stop: threading.Event) -> None:
    """One training after the other; the last one is ended with the measurement."""
    while not stop.is_set():
        train(url)
        wait(lambda: stop.is_set() or not training(url))
    requests.delete(f"{url}/train/", timeout=60).raise_for_status()


if __name__ == "__main__":
    main()
