"""Routes of MONAI Label that get in the way, replaced when the server starts.

Four things are changed, and the checks of roles (RBAC) stay as they are:

- Whatever the app refuses reaches the viewer as a sentence. MONAI Label turns every exception into a bare
  `500 Internal Server Error`.
- Inference and saving a label run in a thread, so that the server answers others meanwhile. MONAI Label
  declares these endpoints `async` around code that blocks.
- Training and batch inference are refused at once where they cannot work, not minutes later in a process.
  Training all models, OHIF's button, leaves out those that take long.
- Whoever downloads an image or uploads one for a session is going to look at it: the app gets ready for clicks.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from monailabel.config import settings
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks

from fewshot.errors import FewshotError

logger = logging.getLogger(__name__)

BUSY = "A training is running: wait until it is done, or stop it."


def install() -> None:
    """Change the server's routes; MONAI Label's web application must exist (it does when it has started)."""
    from monailabel.app import app
    from monailabel.endpoints import batch_infer, datastore, infer, session, train

    router = APIRouter(prefix=settings.MONAI_LABEL_API_STR)
    _replace(router, infer.router, infer.api_run_inference, infer.run_inference)
    _replace(router, datastore.router, datastore.api_save_label, _with_user(datastore.save_label))
    _replace(router, datastore.router, datastore.api_download_image, download_image)
    _replace(router, session.router, session.api_create_session, create_session)
    _replace(router, train.router, train.api_run_model, train_model)
    _replace(router, train.router, train.api_run, train_all)
    _replace(router, batch_infer.router, batch_infer.api_run, batch_model)
    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())  # the first route that matches answers
    tell_errors(app)


def tell_errors(app: FastAPI) -> None:
    """Answer expected failures with their sentence."""
    app.add_exception_handler(FewshotError, _tell_engine_error)
    app.add_exception_handler(MONAILabelException, _tell_monailabel_error)
    app.add_exception_handler(json.JSONDecodeError, _tell_json_error)
    app.middleware_stack = app.build_middleware_stack()  # it holds the handlers, and exists already


def train_model(
    model: str, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    """Start a training, unless there is nothing to learn from or one is running."""
    from monailabel.endpoints import train

    instance = app_instance()
    instance.check_training(model, params or {})
    if not enqueue and (_under_way("train") or instance.trains(model)):
        raise HTTPException(429, BUSY)
    return train.run_model(model, params, run_sync, enqueue)


def train_all(params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Start the trainings of several models one after the other, as OHIF does; which, the app says."""
    instance = app_instance()
    if _under_way("train"):
        raise HTTPException(429, BUSY)
    models = instance.trained_together()
    if not models:
        raise HTTPException(404, "No model is trained together with others here: name the one to train.")
    for model in models:
        instance.check_training(model, (params or {}).get(model) or {})
        if instance.trains(model):
            raise HTTPException(429, BUSY)
    started = {}
    for model in models:
        request = {"model": model, **((params or {}).get(model) or {})}
        task, detail = AsyncTask.run("train", request, params, force_sync=run_sync, enqueue=True)
        started[model] = {"result": task, "detail": detail}
    return started


def batch_model(
    model: str, images: Any = None, params: dict[str, Any] | None = None, run_sync: bool = False
) -> Any:
    """Start a batch inference, unless the model is not ready or one is running."""
    from monailabel.endpoints import batch_infer

    instance = app_instance()
    instance.check_inference(model)
    instance.check_batch(model)
    if _under_way("batch_infer"):
        raise HTTPException(429, "A batch inference is running: wait until it is done, or stop it.")
    return batch_infer.run(model, images, params, run_sync)


def download_image(image: str) -> Any:
    """Send an image to a viewer, which is going to show it."""
    from monailabel.endpoints import datastore

    answer = datastore.download_image(image)
    instance = app_instance()
    instance.on_open(Path(instance.datastore().get_image_uri(image)))
    return answer


def create_session(
    background_tasks: BackgroundTasks, files: list[UploadFile], uncompress: bool = False, expiry: int = 0
) -> Any:
    """Take an image that is in a viewer and not in the studies."""
    from monailabel.endpoints import session

    answer = session.create_session(background_tasks, uncompress, expiry, files)
    app_instance().on_open(Path(answer["session_info"]["image"]))
    return answer


def _under_way(method: str) -> bool:
    """Whether a background task of this kind runs or waits; its process may not have started yet."""
    return any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks(method))


def _replace(
    router: APIRouter, old: APIRouter, endpoint: Callable[..., Any], function: Callable[..., Any]
) -> None:
    """Add to `router` the routes of `old` that end in `endpoint`, ending in `function` instead."""

    def call(**values: Any) -> Any:
        accepted = inspect.signature(function).parameters
        return function(**{name: value for name, value in values.items() if name in accepted})

    # The signature carries the parameters' types and the role that a user needs; not being async, FastAPI
    # runs the function in a thread.
    call.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined]
    call.__name__ = f"fewshot_{endpoint.__name__}"
    for route in old.routes:
        if isinstance(route, APIRoute) and route.endpoint is endpoint:
            router.add_api_route(
                route.path,
                call,
                methods=list(route.methods or ()),
                summary=route.summary,
                tags=list(route.tags),
                responses=dict(route.responses),
                include_in_schema=route.include_in_schema,
            )


def _with_user(function: Callable[..., Any]) -> Callable[..., Any]:
    """MONAI Label's endpoints take a user and hand over the name."""

    def call(**values: Any) -> Any:
        return function(**{**values, "user": values["user"].username})

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _tell_engine_error(request: Request, error: Exception) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"detail": str(error)}, status_code=422)


def _tell_monailabel_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MONAILabelException)
    missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
    unknown = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
    logger.warning("%s %s: %s", request.method, request.url.path, error.msg)
    return JSONResponse({"detail": error.msg}, status_code=404 if missing or unknown else 500)


def _tell_json_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"The request's params are not JSON: {error}."}, status_code=422)
