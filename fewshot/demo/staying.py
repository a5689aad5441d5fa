"""Servers that stay up for a person to look at, until Ctrl-C or a signal ends them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from types import FrameType

from fewshot.console import errors
from fewshot.demo.orthanc import Orthanc
from fewshot.demo.server import Server
from fewshot.errors import FewshotError

POLL_SECONDS = 0.5


def addresses(server: str, pacs: str | None, study: str, *, trained: bool) -> list[tuple[str, str]]:
    """What to open, and what to do there.

    Args:
        server: the MONAI Label server's address.
        pacs: the PACS' address; None where a folder is served.
        study: UID of the DICOM study to open first; not used for a folder.
        trained: whether there is a model to run already.

    Returns:
        Pairs of a program, or nothing, and a line about it.
    """
    work = "Next Sample, Run" if trained else "Next Sample, draw, Submit Label, Train"
    lines = [("3D Slicer", f"module MONAI Label, server {server}: {work}")]
    if pacs is None:
        lines.append(("browser", f"{server} for every call of the API"))
        lines.append(("", "OHIF shows studies of a PACS, not of a folder: add --dicom for it"))
        return lines
    lines.append(("OHIF", f"{server}/ohif/ lists the studies; one of them at once:"))
    lines.append(("", f"{server}/ohif/monai-label?StudyInstanceUIDs={study}"))
    lines.append(("Orthanc", f"{pacs} is the PACS, DICOMweb at {pacs}/dicom-web"))
    return lines


def keep_serving(
    server: Server, orthanc: Orthanc | None, *, study: str, trained: bool, pictures: Path | None = None
) -> None:
    """Say what to open, and wait for Ctrl-C.

    Args:
        server: the running server.
        orthanc: its PACS, if there is one.
        study: UID of the DICOM study to open first; not used for a folder.
        trained: whether there is a model to run already.
        pictures: folder of pictures to name, if there are any.

    Raises:
        FewshotError: if one of them ends by itself.
    """
    lines = addresses(server.url, orthanc.url if orthanc else None, study, trained=trained)
    if pictures:
        lines.append(("pictures", str(pictures)))
    errors.print(
        f"\nThe server stays at {server.url} until Ctrl-C. To look at it:", highlight=False, soft_wrap=True
    )
    for name, line in lines:
        errors.print(f"  {name:<10} {line}", markup=False, highlight=False, soft_wrap=True)
    try:
        while server.running and (orthanc is None or orthanc.running):
            sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return
    if orthanc and not orthanc.running:
        raise FewshotError(f"Orthanc ended by itself. Its log is {orthanc.log}.")
    raise FewshotError(f"The MONAI Label server ended by itself. {server.last_words()}")


@contextmanager
def terminable() -> Iterator[None]:
    """Turn termination and hang-up into an exit that runs every clean-up, the servers' above all."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
        before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
