"""What a background process does by itself: it ends with its server, and its last words are a sentence.

MONAI Label starts a process for every training and every batch inference. Nothing ends it when the server goes, and
its last twenty lines are all that a viewer ever shows of it.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

import psutil  # type: ignore[import-untyped]

from lib.failures import expected, sentence

logger = logging.getLogger(__name__)

SERVER = "FEWSHOT_SERVER_PID"
"""Environment variable in which a server tells its background processes who it is."""

NICENESS = 5
"""How far the process steps back behind the server, which people wait for at their screens."""

LOOK_SECONDS = 0.5
LAST_SECONDS = 10.0
"""After so long a process that was asked to end is ended, whatever it is at: files are whole at every moment."""

STOPPED = "It was ended because the server was stopped: start it again."
DESERTED = "It was ended because the server is gone, killed or crashed: start it again."


class Ended(SystemExit):
    """The process is asked to end. No Exception: nothing that expects errors goes on after it."""


def in_background() -> bool:
    """Whether this process is one that MONAI Label has started for a training or a batch inference."""
    entry = getattr(sys.modules["__main__"], "__spec__", None)
    return getattr(entry, "name", "") == "monailabel.interfaces.utils.app"


def prepare() -> None:
    """Follow the server from now on and leave the cores to it, end in order when asked to, tell failures in a sentence.

    A training hears of it as `Ended`, raised in the main thread, and ends its statistics.
    """
    sys.excepthook = _tell
    if hasattr(os, "nice"):  # Windows has none
        os.nice(NICENESS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    if server := os.environ.get(SERVER):
        threading.Thread(target=_follow, args=(int(server),), name="follow the server", daemon=True).start()


def _end(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # once is enough: what is written down now must be written
        signal.signal(number, signal.SIG_IGN)
    atexit.register(os._exit, 1)  # taking the interpreter apart takes longer than the server waits
    server = os.environ.get(SERVER)
    raise Ended(STOPPED if server is None or _lives(int(server)) else DESERTED)


def _follow(server: int) -> None:
    while _lives(server):
        time.sleep(LOOK_SECONDS)
    logger.error("The server, process %d, is gone: this process ends as well.", server)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_SECONDS)
    os._exit(1)


def _lives(server: int) -> bool:
    """Whether the server is there; only on Windows a process keeps the number of a parent that is gone."""
    return os.getppid() == server and psutil.pid_exists(server)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write an uncaught failure's sentence last, where viewers show the end of the log."""
    if not expected(error):
        sys.__excepthook__(kind, error, trace)
    what = "Training" if "train" in sys.argv else "Batch inference"
    sys.stderr.write(f"{what} failed: {sentence(error)}\n")
    sys.stderr.flush()
