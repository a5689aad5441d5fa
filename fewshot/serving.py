"""The command that starts the MONAI Label server with this app, from any directory and without an active venv."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import fewshot
from fewshot.errors import FewshotError


def serve(
    studies: str, *, host: str = "127.0.0.1", port: int = 8000, conf: Mapping[str, str] | None = None
) -> NoReturn:
    """Become the server: this process is replaced by it, so signals and the exit code are the server's.

    Args:
        studies: folder of images, or DICOMweb address; MONAI Label takes the archive's user and password from
            the environment, MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD.
        host: address to listen on; only this machine by default.
        port: where to listen.
        conf: app configuration, key -> value.

    Raises:
        FewshotError: if the studies, the app or MONAI Label are not there.
    """
    if not studies.startswith(("http://", "https://")) and not Path(studies).is_dir():
        raise FewshotError(
            f"There is no studies folder {studies}; give a folder of images, or a DICOMweb address."
        )
    command = serve_command(studies, host=host, port=port, conf=conf)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, serve_environment())  # noqa: S606 - no shell is wanted


def serve_command(
    studies: str, *, host: str = "127.0.0.1", port: int = 8000, conf: Mapping[str, str] | None = None
) -> list[str]:
    """The command line of the server; see `serve` for the arguments.

    MONAI Label's own console script is a shell script that takes any `python` from the path and breaks
    arguments at blanks; its module does neither.

    Raises:
        FewshotError: if the app or MONAI Label is not there.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise FewshotError('MONAI Label is not installed: pip install "fewshot[server]".')
    remote = studies.startswith(("http://", "https://"))
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app_folder()), "--studies", studies if remote else str(Path(studies).resolve())]
    command += ["--host", host, "--port", str(port)]
    for key, value in (conf or {}).items():
        command += ["--conf", key, value]
    return command


def serve_environment() -> dict[str, str]:
    """The environment of the server: the tools of this Python's folder (dcmqi's) are found on the path."""
    tools = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return {**os.environ, "PATH": os.pathsep.join([tools, *(path for path in paths if path != tools)])}


def app_folder() -> Path:
    """The MONAI Label app of this checkout.

    Raises:
        FewshotError: if the package was installed without the repository around it.
    """
    folder = Path(fewshot.__file__).resolve().parents[1] / "apps" / "fewshot"
    if not (folder / "main.py").is_file():
        raise FewshotError(
            f"The app is not at {folder}: run this from a checkout of the project (pip install -e .)."
        )
    return folder
