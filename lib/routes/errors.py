"""Expected failures reach the viewer as a sentence; MONAI Label turns every one into a bare 500."""

from __future__ import annotations

import json
import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from fewshot.errors import FewshotError

logger = logging.getLogger(__name__)


def tell_errors(app: FastAPI) -> None:
    """Answer expected failures with their sentence."""
    app.add_exception_handler(FewshotError, _tell_engine_error)
    app.add_exception_handler(MONAILabelException, _tell_monailabel_error)
    app.add_exception_handler(json.JSONDecodeError, _tell_json_error)
    app.middleware_stack = app.build_middleware_stack()  # it holds the handlers, and exists already


def _tell_engine_error(request: Request, error: Exception) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    status = getattr(error, "status", 422)  # what a PACS cannot do is no fault of the request
    return JSONResponse({"detail": str(error)}, status_code=status)


def _tell_monailabel_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MONAILabelException)
    missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
    unknown = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
    logger.warning("%s %s: %s", request.method, request.url.path, error.msg)
    return JSONResponse({"detail": error.msg}, status_code=404 if missing or unknown else 500)


def _tell_json_error(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"The request's params are not JSON: {error}."}, status_code=422)
