"""The idle server against MONAI Label with an empty app: start-up and memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests

from benchmarks.timing import Row

ROOT = Path(__file__).parents[1]
REPEATS = 3
EMPTY_APP = """
from monailabel.interfaces.app import MONAILabelApp


class EmptyApp(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        super().__init__(app_dir, studies, conf, name="empty")
"""


def rows() -> list[Row]:
    """Best start-up time and least memory of several starts, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty"
        empty.mkdir()
        (empty / "main.py").write_text(EMPTY_APP)
        apps = {"empty": empty, "fewshot": ROOT / "apps" / "fewshot"}
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in apps}
        for turn in range(REPEATS):
            for name, app in apps.items():
                measured[name].append(start_once(app, Path(folder) / f"{name}{turn}"))
    seconds, memory = ({name: min(m[i] for m in of) for name, of in measured.items()} for i in (0, 1))
    return [
        _row("server start-up (s): fewshot / empty app", seconds["empty"], seconds["fewshot"]),
        _row("idle server memory (MB): fewshot / empty app", memory["empty"], memory["fewshot"]),
    ]


def start_once(app: Path, folder: Path) -> tuple[float, float]:
    """Start a server, wait until it answers, stop it: seconds and megabytes."""
    studies = folder / "studies"
    studies.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "FEWSHOT_BANK": str(folder / "bank"),
        "PYTHONPATH": "",
    }
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app)]
    command += ["--studies", str(studies), "--host", "127.0.0.1", "--port", str(port)]
    if app.parent.parent == ROOT:
        command += ["--conf", "workspace", str(folder / "workspace")]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{app.name} did not start")
            try:
                requests.get(f"http://127.0.0.1:{port}/info/", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.05)
        seconds = time.perf_counter() - started
        time.sleep(1)
        return seconds, psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _row(name: str, plain: float, ours: float) -> Row:
    return Row(name, plain, ours, ours / plain, "<= 1.1", ours <= 1.1 * plain)
