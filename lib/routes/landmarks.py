"""/landmarks/{image}: the landmarks of an image as JSON, as Slicer's markups, or as a DICOM structured report (SR)."""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.config import RBAC_ANNOTATOR, RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from lib.models import LANDMARKS, LATEST
from lib.pacs.datastore import Pacs
from lib.requested import require_tag
from lib.routes.inference import in_turn

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkPrediction

router = APIRouter(prefix="/landmarks", tags=["Landmarks"])

FINAL, ORIGINAL = "final", "original"


class Format(StrEnum):
    """What landmarks can be sent as."""

    json = "json"
    mrk = "mrk"
    sr = "sr"


@router.get("/{image}", summary=f"{RBAC_USER}Get the landmarks of an image")
async def get_landmarks(
    request: Request,
    background_tasks: BackgroundTasks,
    image: str,
    format: Format = Format.json,  # noqa: A002 - the name in the address
    model: str = LANDMARKS,
    version: str = LATEST,
    tag: str = ORIGINAL,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008
) -> Response:
    """What the model found in the image, or what people marked in it (`tag=final`).

    What this version of the model found in the image before is not computed again.
    """
    if format == Format.sr:
        _pacs()
    prediction = await _landmarks(request, background_tasks, image, model, version, tag, user)
    return await run_in_threadpool(_as, format, image, prediction, background_tasks, user)


@router.post("/{image}/sr", summary=f"{RBAC_ANNOTATOR}Store the landmarks of an image in the PACS")
async def store_landmarks(
    request: Request,
    background_tasks: BackgroundTasks,
    image: str,
    model: str = LANDMARKS,
    version: str = LATEST,
    tag: str = ORIGINAL,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)),  # noqa: B008
) -> dict[str, str]:
    """Store what `get_landmarks` gives in the PACS, as a report (SR) of the image's study.

    Returns:
        ``image``, and ``study``, ``series`` and ``instance`` of the report.
    """
    pacs = _pacs()
    prediction = await _landmarks(request, background_tasks, image, model, version, tag, user)

    def store() -> dict[str, str]:
        stored = pacs.store_landmarks(image, prediction, creator=_creator(user))
        return {"image": image, "study": stored.study, "series": stored.series, "instance": stored.instance}

    return await run_in_threadpool(store)


async def _landmarks(
    request: Request,
    background_tasks: BackgroundTasks,
    image: str,
    model: str,
    version: str,
    tag: str,
    user: User,
) -> LandmarkPrediction:
    """The landmarks that were submitted, that the model has found before, or that it finds now.

    Raises:
        HTTPException, FewshotError: if there are none.
    """
    require_tag(tag)
    if tag not in (FINAL, ORIGINAL):
        raise HTTPException(422, f"There are no landmarks with the tag {tag}: ask for {FINAL} or {ORIGINAL}.")
    instance = app_instance()
    project = instance.project
    if tag == FINAL:
        return await run_in_threadpool(project.results.submitted, image)
    finder = instance.landmark_finder(model)
    chosen = await run_in_threadpool(finder.version, version)
    if found := await run_in_threadpool(project.results.last, model, image, chosen):
        return found
    values: dict[str, Any] = {}

    def run() -> LandmarkPrediction:
        progress = project.engine.queue.progress(values["ticket"])
        prediction = finder.find(project.path(image), version=chosen, progress=progress)
        project.results.keep(model, image, {**prediction.to_json(), "version": chosen})
        return prediction

    return await in_turn(request, background_tasks, model, image, values, user, run)


def _as(
    format_: Format, image: str, prediction: LandmarkPrediction, background_tasks: BackgroundTasks, user: User
) -> Response:
    if format_ == Format.json:
        return JSONResponse(prediction.to_json())
    if format_ == Format.mrk:
        from fewshot.landmarks.markups import markups_json

        return JSONResponse(markups_json(prediction), headers=_named(f"{image}.mrk.json"))
    from lib.pacs.sr_writing import write_sr

    handle, out = tempfile.mkstemp(prefix="sr-", suffix=".dcm")
    os.close(handle)
    background_tasks.add_task(remove_file, out)
    try:
        write_sr(prediction, _pacs().dicom(image), Path(out), creator=_creator(user))
    except BaseException:
        remove_file(out)  # after a failure nobody runs the tasks
        raise
    return FileResponse(out, media_type="application/dicom", filename=f"{image}.dcm")


def _named(file: str) -> dict[str, str]:
    """Under which name a browser saves what it gets."""
    return {"Content-Disposition": f"attachment; filename*=utf-8''{quote(file)}"}


def _pacs() -> Pacs:
    store = app_instance().datastore()
    if not isinstance(store, Pacs):
        raise HTTPException(
            422,
            "A DICOM report needs images from a DICOMweb server, and this server has a folder of studies: ask for "
            "json or mrk.",
        )
    return store


def _creator(user: User) -> str:
    return str(user.username) if settings.MONAI_LABEL_AUTH_ENABLE else ""
