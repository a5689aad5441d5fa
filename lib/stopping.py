"""The end of the server: what it has started ends with it, and it ends in seconds whatever is under way.

MONAI Label ends nothing: a training goes on without its server, one that waits may even start while the server goes,
and one viewer with a slow connection, or one inference, keeps the server from ever ending.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from monailabel.utils.async_tasks import utils as background

from lib import tasks
from lib.background import SERVER, STOPPED

logger = logging.getLogger(__name__)

GENTLE_SECONDS = 3.0
"""So long background processes may take to end in order."""

REQUEST_SECONDS = 3
"""So long requests may take to be answered after that."""

LAST_SECONDS = 5.0
"""After so long, counted from there, the server ends even if something still holds it."""

SETTLE_SECONDS = 0.3
"""A task that was handed to its thread just before may start its process within this time."""


def web_server() -> uvicorn.Server | None:
    """The server that this process runs and that handles its signals; None in tests and background processes."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def install(server: uvicorn.Server | None, after: Callable[[str], None]) -> None:
    """From now on SIGTERM and SIGINT end the server in order, and background processes know whom to follow.

    Args:
        server: None leaves the signals as they are.
        after: called with the reason when all background processes have ended.
    """
    os.environ[SERVER] = str(os.getpid())
    if server is None:
        return
    if server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = REQUEST_SECONDS
    stop = _Stop(server, after)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.asked)


def end_background_tasks() -> None:
    """End all trainings and batch inferences, asking first, and let none of those that wait begin."""
    for executor in list(background.background_executors.values()):
        executor.shutdown(wait=False, cancel_futures=True)
    under_way = tasks.under_way()
    if not under_way:
        return
    tasks.mark_stopped(under_way)
    asked: set[int] = set()
    start = time.monotonic()
    while (waited := time.monotonic() - start) < GENTLE_SECONDS:
        processes = tasks.processes()
        for process in processes:
            if process.pid not in asked:
                logger.info("Process %d is asked to end, as the server ends", process.pid)
                asked.add(process.pid)
                process.terminate()
        if not processes and waited > SETTLE_SECONDS:
            return
        time.sleep(0.05)
    for process in tasks.processes():
        logger.warning("Process %d does not end by itself and is killed", process.pid)
        tasks.kill(process)


class _Stop:
    """Ends the server when a signal asks for it."""

    def __init__(self, server: uvicorn.Server, after: Callable[[str], None]) -> None:
        self._server = server
        self._after = after
        self._thread: threading.Thread | None = None

    def asked(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. The work is done in a thread: the server may be busy, and answers meanwhile if it is not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._end, args=(number,), name="end", daemon=True)
            self._thread.start()
        else:
            self._server.handle_exit(number, frame)

    def _end(self, number: int) -> None:
        try:
            end_background_tasks()
            self._after(STOPPED)
        except Exception:  # whatever goes wrong here, the server must end
            logger.exception("Not everything ended in order")
        logging.getLogger("uvicorn.error").addFilter(_no_cut_request)
        atexit.register(_leave, 128 + number)  # after SIGTERM the web server does not come so far
        self._server.handle_exit(number, None)
        time.sleep(LAST_SECONDS)
        logger.warning("The server ends, though something is still under way")
        os._exit(128 + number)


def _leave(code: int) -> None:
    """End here, when all is done: taking the interpreter apart, with all that was loaded, takes many seconds."""
    logging.shutdown()
    os._exit(code)


def _no_cut_request(record: logging.LogRecord) -> bool:
    """Requests that are cut at the end are told in one line; uvicorn adds a call stack for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
