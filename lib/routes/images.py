"""Whoever downloads an image or uploads one for a session is going to look at it: the app gets ready for clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import UploadFile
from fastapi.background import BackgroundTasks
from monailabel.endpoints import datastore, session
from monailabel.interfaces.utils.app import app_instance


def download_image(image: str) -> Any:
    """Send an image to a viewer, which is going to show it."""
    answer = datastore.download_image(image)
    instance = app_instance()
    instance.on_open(Path(instance.datastore().get_image_uri(image)))
    return answer


def create_session(
    background_tasks: BackgroundTasks, files: list[UploadFile], uncompress: bool = False, expiry: int = 0
) -> Any:
    """Take an image that is in a viewer and not in the studies."""
    answer = session.create_session(background_tasks, uncompress, expiry, files)
    app_instance().on_open(Path(answer["session_info"]["image"]))
    return answer
