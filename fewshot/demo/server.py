"""A MONAI Label server with this app, as a child process that never outlives its caller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import requests

from fewshot.errors import FewshotError
from fewshot.serving import serve_command, serve_environment

START_SECONDS = 180.0
"""Start-up takes about ten seconds; a cold disk or a busy machine takes several times that."""

STOP_SECONDS = 10.0


def free_port(wanted: int | None = None) -> int:
    """A port on the loopback interface that nobody listens on: the wanted one, else any.

    Raises:
        FewshotError: the wanted port is taken, perhaps by a server that would answer in place of ours.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise FewshotError(
                f"Port {wanted} cannot be used ({error.strerror}): give another one."
            ) from error
        return int(probe.getsockname()[1])


def usual_port(usual: int) -> int:
    """The port where a program is usually looked for, or any free one if it is taken."""
    try:
        return free_port(usual)
    except FewshotError:
        return free_port()


class Server:
    """A running server; as a context manager it is stopped however the block ends.

    Args:
        studies: folder of images that the server serves, or a DICOMweb address.
        log: file that receives everything the server says.
        conf: app configuration, key -> value.
        environment: variables set for the server beside the caller's own.
        port: where to listen on the loopback interface; None takes a free port.
    """

    def __init__(
        self,
        studies: Path | str,
        log: Path,
        *,
        conf: Mapping[str, str],
        environment: Mapping[str, str],
        port: int | None = None,
    ) -> None:
        self.studies = studies
        self.log = log
        self.conf = dict(conf)
        self.environment = dict(environment)
        self.port = free_port(port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = serve_command(str(self.studies), port=self.port, conf=self.conf)
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal reaches the caller alone, who then stops it.
            # MONAI Label reads an .env file of the working directory: there is none beside the log.
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**serve_environment(), **self.environment},
                cwd=self.log.parent,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self, *, seconds: float = START_SECONDS) -> float:
        """Wait until the server answers.

        Args:
            seconds: how long to wait at most.

        Raises:
            FewshotError: the server ended or stayed silent; with the end of what it said.

        Returns:
            Seconds waited.
        """
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            if not self.running:
                raise FewshotError(f"The MONAI Label server ended during start-up. {self.last_words()}")
            try:
                if requests.get(f"{self.url}/info/", timeout=10).ok:
                    return time.monotonic() - start
            except requests.RequestException:
                # Nobody listens yet: exactly what is waited for.
                time.sleep(0.25)
        raise FewshotError(
            f"The MONAI Label server did not answer within {seconds:.0f} s. {self.last_words()}"
        )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self, lines: int = 12) -> str:
        """The end of the server's log, for an error message."""
        text = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return "\n".join([f"Its log ({self.log}) ends with:", *text[-lines:]])

    def stop(self) -> None:
        """End the server and every process it has started, a running training included."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's process group: it lives on in a training when the server is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):  # nobody left; macOS says the latter
                os.killpg(self._process.pid, number)
