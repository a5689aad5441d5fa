"""Orthanc, a small PACS, as a child process that answers this machine only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from fewshot.demo.server import free_port
from fewshot.errors import FewshotError

PROGRAM = "Orthanc"
PLUGIN = "libOrthancDicomWeb.so"
PLUGIN_FOLDERS = (
    "/usr/share/orthanc/plugins",
    "/usr/local/share/orthanc/plugins",
    "/usr/lib/orthanc/plugins",
)
INSTALL = "on Debian and Ubuntu: apt-get install orthanc orthanc-dicomweb"
START_SECONDS = 60.0


class Orthanc:
    """A running Orthanc with DICOMweb; as a context manager it is stopped however the block ends.

    Args:
        folder: receives its database, configuration and log.
        port: where to listen; None takes a free port.

    Raises:
        FewshotError: if Orthanc or its DICOMweb plugin is not installed, or the port is taken.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self._program, self._plugin = find_program(), find_plugin()
        self.folder = folder
        self.port = free_port(port)
        self.log = folder / "orthanc.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its REST API and web page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        """Its DICOMweb address, which MONAI Label takes as studies."""
        return f"{self.url}/dicom-web"

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, or start it again with what it had stored."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "orthanc.json"
        settings.write_text(json.dumps(configuration(self.folder, self.port, self._plugin), indent=2) + "\n")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(settings)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )

    def wait_until_ready(self, *, seconds: float = START_SECONDS) -> float:
        """Wait until it answers DICOMweb queries; returns the seconds waited.

        Raises:
            FewshotError: it ended or stayed silent; with the end of what it said.
        """
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            if not self.running:
                raise FewshotError(
                    f"Orthanc ended during start-up. Its log is {self.log}.{self._last_error()}"
                )
            with suppress(requests.RequestException):  # nobody listens yet
                if requests.get(f"{self.dicomweb}/studies", params={"limit": 1}, timeout=5).ok:
                    return time.monotonic() - start
            time.sleep(0.1)
        raise FewshotError(f"Orthanc did not answer within {seconds:.0f} s. Its log is {self.log}.")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def upload(self, folder: Path) -> int:
        """Send all files of a folder; returns how many.

        Raises:
            FewshotError: if Orthanc refuses one.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with requests.Session() as session:
            for path in files:
                answer = session.post(f"{self.url}/instances", data=path.read_bytes(), timeout=60)
                if not answer.ok:
                    raise FewshotError(
                        f"Orthanc refused {path} ({answer.status_code}): {answer.text.strip()[:200]}"
                    )
        return len(files)

    def stop(self) -> None:
        """End it; what it stored stays in its folder."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _last_error(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        errors = [line for line in lines if line.startswith("E")]
        return f" It says: {errors[-1]}" if errors else ""


def configuration(folder: Path, port: int, plugin: Path) -> dict[str, Any]:
    """Orthanc's configuration: DICOMweb for this machine alone, no DICOM listener, objects are replaced.

    Versions before 1.12 listen on every network interface, but refuse whoever is not on this machine.
    """
    return {
        "Name": "fewshot",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpServerEnabled": True,
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(plugin)],
        "OverwriteInstances": True,
        "StableAge": 2,
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "EnableWado": False,
            "Ssl": False,
            "StudiesMetadata": "Full",
            "SeriesMetadata": "Full",
        },
    }


def find_program() -> str:
    """Where Orthanc is.

    Raises:
        FewshotError: if it is not installed.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(PROGRAM, path=places)
    if found is None:
        raise FewshotError(f"Orthanc is not installed; {INSTALL}.")
    return found


def find_plugin() -> Path:
    """Where Orthanc's DICOMweb plugin is.

    Raises:
        FewshotError: if it is not installed.
    """
    for folder in PLUGIN_FOLDERS:
        if (Path(folder) / PLUGIN).exists():
            return Path(folder) / PLUGIN
    raise FewshotError(f"Orthanc's DICOMweb plugin {PLUGIN} is not installed; {INSTALL}.")
