"""Routes of the repaired viewer, with the roles that MONAI Label asks for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, Response
from monailabel.config import settings
from monailabel.endpoints import ohif
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import get_mime_type

from lib.ohif.viewer import Viewer

router = APIRouter()
USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))


@cache
def viewer() -> Viewer:
    """The viewer that came with MONAI Label."""
    return Viewer(Path(ohif.__file__).parent / "static" / "ohif")


@router.get("/ohif/{path:path}", include_in_schema=False, dependencies=[USER])
def serve_viewer(path: str) -> Response:
    """A file of the viewer, or its page."""
    content = viewer().content(path)
    if isinstance(content, Path):
        return FileResponse(content, media_type=get_mime_type(str(content)))
    # a browser must not keep what another version of this app repairs in another way
    name = path if path.endswith(".js") else "index.html"
    return Response(content, media_type=get_mime_type(name), headers={"Cache-Control": "no-cache"})


@router.post(
    "/datastore/refresh",
    tags=["Datastore"],
    summary="Look for new images and labels now",
    dependencies=[ANNOTATOR],
)
def refresh_studies() -> dict[str, Any]:
    """Ask the DICOM server what is new, for OHIF stores labels there without a word to this server."""
    datastore = app_instance().datastore()
    refresh = getattr(datastore, "refresh", None)
    if refresh:
        refresh()
    status: dict[str, Any] = datastore.status()
    return {key: status[key] for key in ("total", "completed") if key in status}
