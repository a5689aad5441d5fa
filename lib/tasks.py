"""The trainings and batch inferences of this server: each kind one after the other, each in a process of its own.

MONAI Label's own stop ends the process that runs; those that wait begin after it, and one whose process starts in that
moment goes on.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil  # type: ignore[import-untyped]
from monailabel.utils.async_tasks import utils as background

logger = logging.getLogger(__name__)

Task = dict[str, Any]

STOP_SECONDS = 10.0
"""So long killed processes may take to be gone."""

CHANGING = threading.Lock()
"""Held while tasks are started or stopped: one must not be handed to a queue that is being given up."""


def under_way(method: str | None = None) -> list[Task]:
    """The tasks that run or wait, the first one first; a process may not have started yet.

    Args:
        method: "train" or "batch_infer"; None for both.
    """
    kinds = list(background.background_tasks.values()) if method is None else [background.tasks(method)]
    return [task for kind in kinds for task in list(kind) if task["status"] in ("SUBMITTED", "RUNNING")]


def processes(method: str | None = None) -> list[subprocess.Popen]:
    """The processes that run."""
    every = list(background.background_processes.values())
    kinds = every if method is None else [background.processes(method)]
    return [process for kind in kinds for process in list(kind.values()) if process.poll() is None]


def mark_stopped(tasks: list[Task]) -> None:
    """Write down that these were stopped now."""
    for task in tasks:
        task.update(status="STOPPED", end_ts=datetime.now().strftime("%Y-%m-%d %H:%M:%S"))


def kill(process: subprocess.Popen) -> None:
    """End a process and its children at once."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)


def stop(method: str) -> Task | None:
    """End the task that runs and all that wait; others can be started as soon as this returns.

    Returns:
        The first of them, None if there was none.
    """
    with CHANGING:
        stopped = under_way(method)
        executor = background.background_executors.pop(method, None)  # MONAI Label makes a new one when asked
        if executor is not None:
            options = {"wait": True, "cancel_futures": True}
            emptied = threading.Thread(target=executor.shutdown, kwargs=options, daemon=True)
            emptied.start()
            end = time.monotonic() + STOP_SECONDS
            while emptied.is_alive() and time.monotonic() < end:
                # again and again: a task that is no longer waiting may not have its process yet
                for process in processes(method):
                    logger.info("Process %d is killed: its task was stopped", process.pid)
                    kill(process)
                emptied.join(0.02)
            background.processes(method).clear()
        # only now: the thread that waited for a process says itself how it ended
        mark_stopped(stopped)
    return stopped[0] if stopped else None
