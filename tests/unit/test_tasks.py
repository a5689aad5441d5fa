"""Stopping trainings: all that wait, and one whose process is only starting; with processes that just sleep."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.utils.async_tasks import utils as background

from lib import tasks

METHOD = "train"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """MONAI Label's queue, whose processes sleep; `gate` holds up their start."""
    state = SimpleNamespace(gate=threading.Event(), reached=threading.Event(), begun=[], seconds=60)
    state.gate.set()

    def start(_command: list[str], **options: object) -> subprocess.Popen:
        state.reached.set()
        state.gate.wait(20)
        child = (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep({})'])"
        )
        command = [sys.executable, "-c", child.format(state.seconds)]
        state.begun.append(subprocess.Popen(command, **options))  # type: ignore[call-overload]
        return state.begun[-1]

    fake = SimpleNamespace(**{**vars(subprocess), "Popen": start})
    monkeypatch.setattr(background, "subprocess", fake)
    monkeypatch.setenv("PYTHONPATH", "")
    for name in ("background_tasks", "background_processes", "background_executors"):
        monkeypatch.setattr(background, name, {})
    yield state
    for process in state.begun:
        tasks.kill(process)


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def submit(count: int = 1) -> list[dict]:
    return [background.run_background_task({"model": str(n)}, METHOD) for n in range(count)]


def test_all_that_wait_are_stopped_and_others_can_begin(processes):
    asked = submit(4)
    wait_for(lambda: asked[0]["status"] == "RUNNING" and psutil.Process(processes.begun[0].pid).children())
    (child,) = psutil.Process(processes.begun[0].pid).children()
    assert len(tasks.under_way(METHOD)) == len(tasks.under_way()) == 4
    assert tasks.stop(METHOD) is asked[0]
    assert [task["status"] for task in asked] == ["STOPPED"] * 4
    assert all(task["end_ts"] for task in asked)
    assert processes.begun[0].poll() is not None
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    processes.seconds = 0
    (later,) = submit()
    wait_for(lambda: later["status"] == "DONE")
    assert len(processes.begun) == 2, "nothing that waited has begun"
    assert [task["status"] for task in asked] == ["STOPPED"] * 4


def test_one_whose_process_starts_in_that_instant_ends_too(processes):
    processes.gate.clear()
    asked = submit(2)
    assert processes.reached.wait(20)
    assert [task["status"] for task in asked] == ["SUBMITTED"] * 2
    threading.Timer(0.3, processes.gate.set).start()
    assert tasks.stop(METHOD) is asked[0]
    assert [task["status"] for task in asked] == ["STOPPED"] * 2
    assert [process.poll() is not None for process in processes.begun] == [True]
    assert tasks.processes() == []
    assert background.processes(METHOD) == {}


def test_there_may_be_nothing_to_stop(processes):
    assert tasks.stop(METHOD) is None
    processes.seconds = 0
    (done,) = submit()
    wait_for(lambda: done["status"] == "DONE")
    assert tasks.stop(METHOD) is None
    assert done["status"] == "DONE"
