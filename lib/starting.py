"""The start of the server: its tools are found, nothing is downloaded, and only this machine reaches it unless told."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import shutil
import sys

import uvicorn
from monailabel.config import settings

from fewshot.errors import FewshotError
from fewshot.serving import serve_environment

logger = logging.getLogger(__name__)

HERE = "127.0.0.1"
TOLD = re.compile(r"(-i|--ho|--hos|--host)(=|$)|-i[^-]")
"""The server's option for its address, as argparse lets people shorten it."""


def find_tools() -> None:
    """Find the tools of this Python's folder, dcmqi's, also where its environment is not activated."""
    os.environ["PATH"] = serve_environment()["PATH"]


def require_dicom_tools() -> None:
    """Refuse to start without the converter to DICOM SEG.

    Raises:
        FewshotError: with how to install it.
    """
    if not shutil.which("itkimage2segimage"):
        raise FewshotError(
            "Labels are kept in a DICOM archive as DICOM SEG, which dcmqi writes, and it is not installed: "
            "pip install dcmqi==1.5.7."
        )


def listen(server: uvicorn.Server | None) -> None:
    """Let the server listen to this machine only, unless an address was given; say so if others can reach it.

    MONAI Label listens to the whole network by default, and asks nobody who they are.

    Args:
        server: one that starts and does not listen yet; None does nothing.
    """
    if server is None:
        return
    config = server.config
    entry = getattr(sys.modules["__main__"], "__spec__", None)
    by_default = getattr(entry, "name", "") == "monailabel.main" and not any(map(TOLD.match, sys.argv[1:]))
    if by_default and config.workers == 1:
        config.host = HERE
        logger.info("Only this machine reaches the server; --host 0.0.0.0 lets the network in.")
    elif not _local(config.host) and not settings.MONAI_LABEL_AUTH_ENABLE:
        logger.warning(
            "Whoever reaches %s:%d over the network can see the studies and change their labels, nobody has to log "
            "in: start with --host %s, or with MONAI_LABEL_AUTH_ENABLE.",
            config.host,
            config.port,
            HERE,
        )


def _local(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "0.0.0.0").is_loopback  # noqa: S104 - as uvicorn understands it
    except ValueError:
        return host == "localhost"
