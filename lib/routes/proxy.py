"""/proxy/dicom/*: what OHIF asks the PACS, through this server and in threads of its own.

MONAI Label's proxy waits for the PACS inside an `async` function, so that nobody else is answered meanwhile, drops the
query string and the headers of a GET, and has no time limit.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from functools import cache, partial
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import requests
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from urllib3.exceptions import HTTPError

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/proxy", tags=["Others"])

THREADS = 16
"""Requests to the PACS at a time; those beyond wait, and leave the web server's own threads to others."""

CHUNK = 1 << 19

FORWARDED = {
    *("accept", "accept-charset", "accept-encoding", "content-type"),
    *("if-modified-since", "if-none-match", "prefer", "range"),
}
"""What the PACS is told: nothing of this hop, and neither our user's token nor cookies."""

HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("te", "trailer", "trailers", "transfer-encoding", "upgrade"),
}

SERVICES = ("wado", "qido", "stow")


@cache
def _threads() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(THREADS)


@router.get("/dicom/{path:path}", include_in_schema=False)
async def fetch(
    request: Request,
    path: str,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: ARG001, B008
) -> StreamingResponse:
    """What the PACS has."""
    return await _forward(request, path, None)


@router.post("/dicom/{path:path}", include_in_schema=False)
async def store(
    request: Request,
    path: str,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)),  # noqa: ARG001, B008
) -> StreamingResponse:
    """Store in the PACS. A segmentation there is a label: it takes the role that submitting one here takes."""
    return await _forward(request, path, await request.body())


async def _forward(request: Request, path: str, body: bytes | None) -> StreamingResponse:
    """Ask the PACS the same, and hand on its answer while it comes.

    Raises:
        HTTPException: 502 if it does not answer, 504 if it takes too long.
    """
    ask = partial(_ask, request.method, path, request.url.query, dict(request.headers), body)
    answer = await anyio.to_thread.run_sync(ask, limiter=_threads())
    dropped = HOP_BY_HOP | {name.strip().lower() for name in answer.headers.get("Connection", "").split(",")}
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in dropped}
    return StreamingResponse(_chunks(answer), answer.status_code, headers)


def _ask(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None) -> Any:
    url = _url(path) + (f"?{query}" if query else "")
    sent = {name: value for name, value in headers.items() if name.lower() in FORWARDED}
    # Without these, requests would say what it prefers itself.
    sent = {"accept": "*/*", "accept-encoding": "identity", **sent}
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    auth = (name, password) if name and password else None
    if "googleapis.com" in settings.MONAI_LABEL_STUDIES:
        sent["authorization"], auth = f"Bearer {_google_token()}", None
    seconds = settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT
    try:
        return requests.request(
            method, url, headers=sent, data=body, auth=auth, stream=True, timeout=(min(seconds, 5.0), seconds)
        )
    except requests.ReadTimeout:
        logger.warning("The PACS has not answered %s %s within %g s", method, url, seconds)
        raise HTTPException(
            504, f"The PACS at {_server()} has not answered within {seconds:g} s: try again, or ask for less."
        ) from None
    except requests.RequestException as error:
        logger.warning("The PACS does not answer %s %s: %s", method, url, error)
        raise HTTPException(
            502, f"The PACS at {_server()} does not answer: check that it runs and can be reached."
        ) from None


def _url(path: str) -> str:
    """Where the PACS has what OHIF asks of one of the three services."""
    if ".." in path.split("/"):
        raise HTTPException(400, "The path leads out of the PACS's DICOMweb: leave out the two dots.")
    if not _server().startswith(("http://", "https://")):
        raise HTTPException(404, "There is no PACS behind this server: it serves a folder of studies.")
    # It was decoded once, which is what was looked at; what is encoded in it must not be decoded on the way.
    path = quote(path, safe="/,:@")
    service, _, rest = path.partition("/")
    if service not in SERVICES:
        return f"{_server()}/{path}"
    if rest.endswith("metadata") and service == "qido":
        service = "wado"  # some versions of OHIF ask the wrong service
    prefix = getattr(settings, f"MONAI_LABEL_{service.upper()}_PREFIX")
    return "/".join([_server(), *([prefix] if prefix else []), rest])


def _server() -> str:
    return str(settings.MONAI_LABEL_STUDIES).rstrip("/")


async def _chunks(answer: Any) -> AsyncIterator[bytes]:
    """The body as it comes, compressed as the PACS has compressed it."""
    read = partial(answer.raw.read, CHUNK, decode_content=False)
    try:
        while chunk := await anyio.to_thread.run_sync(read, limiter=_threads()):
            yield chunk
    except (HTTPError, OSError) as error:
        logger.warning("The PACS stopped in the middle of %s: %s", answer.url, error)
        raise  # the status has been sent: only a broken connection tells the viewer that this is not all
    finally:
        answer.close()


@cache
def _google_credentials() -> Any:
    import google.auth

    return google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])[0]


def _google_token() -> str:
    from google.auth.transport.requests import Request as Refresh

    credentials = _google_credentials()
    if not credentials.valid:
        credentials.refresh(Refresh())
    return str(credentials.token)
