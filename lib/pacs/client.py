"""The DICOMweb client, made from MONAI Label's settings, with time limits."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom import Dataset
from requests.adapters import HTTPAdapter
from typing_extensions import override

CONNECT_SECONDS = 5.0
HEADER_SECONDS = 30.0
"""For the headers of one series; others wait for them, and they are asked for again."""
TRANSFER_SECONDS = 120.0
"""Between two pieces of an answer that holds pixels; a PACS may have to fetch them from far away."""

FILTER, EXPIRY = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER", "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY"
POLL_SECONDS = 5.0

AS_STORED = (("application/dicom", "*"),)
NOT_SO = (400, 406, 415)
"""Answers of a PACS that does not know how to send files as they are."""

Answer = TypeVar("Answer")


class TimeLimits(HTTPAdapter):
    """No request without a time limit: a PACS that is silent must not hold a thread for ever.

    Args:
        query_seconds: to wait for the answer to a query.
        header_seconds: to wait for each piece of an answer with headers.
        transfer_seconds: to wait for each piece of an answer with pixels, and after sending some.
    """

    def __init__(self, query_seconds: float, header_seconds: float, transfer_seconds: float) -> None:
        super().__init__()
        self._query, self._header, self._transfer = query_seconds, header_seconds, transfer_seconds

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        path = str(request.url).partition("?")[0]
        seconds = self._transfer
        if request.method == "GET" and path.endswith("/series"):
            seconds = self._query
        elif path.endswith("/metadata"):
            seconds = self._header
        kwargs["timeout"] = (CONNECT_SECONDS, seconds)
        return super().send(request, *args, **kwargs)


def make_client(
    url: str,
    *,
    query_seconds: float | None = None,
    header_seconds: float = HEADER_SECONDS,
    transfer_seconds: float = TRANSFER_SECONDS,
) -> DICOMwebClient:
    """A client with the account and the prefixes of MONAI Label's settings; nothing is asked yet.

    Args:
        url: the DICOMweb address.
        query_seconds: to wait for the answer to a query; by default MONAI_LABEL_DICOMWEB_READ_TIMEOUT.
        header_seconds: to wait for each piece of an answer with headers.
        transfer_seconds: to wait for each piece of an answer with pixels.
    """
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if "googleapis.com" in url:
        from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials

        session = create_session_from_gcp_credentials()
        client: DICOMwebClient = DICOMwebClient(url=url, session=session)
    else:
        session = requests.Session()
        if user and password:
            session.auth = (user, password)
        client = DICOMwebClientX(
            url=url,
            session=session,
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX or None,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX or None,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX or None,
        )
    query_seconds = query_seconds or settings.MONAI_LABEL_DICOMWEB_READ_TIMEOUT
    limits = TimeLimits(query_seconds, header_seconds, transfer_seconds)
    for scheme in ("http://", "https://"):
        session.mount(scheme, limits)
    logging.getLogger("dicomweb_client").setLevel(
        logging.WARNING
    )  # it tells of every request, every few seconds
    client.set_http_retry_params(retry=False)  # it would keep a viewer waiting for half a minute
    return client


def iter_files(client: DICOMwebClient, study: str, series: str) -> Iterator[Dataset]:
    """All files of a series, as the PACS has them where it can send them so.

    By default PACS decompress what they send, which not all of them can do with every kind of compression.
    """
    return _as_stored(lambda kinds: client.iter_series(study, series, media_types=kinds))


def get_file(client: DICOMwebClient, study: str, series: str, instance: str) -> Dataset:
    """One file, likewise."""
    return _as_stored(lambda kinds: client.retrieve_instance(study, series, instance, media_types=kinds))


def _as_stored(get: Callable[[Any], Answer]) -> Answer:
    try:
        return get(AS_STORED)
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code not in NOT_SO:
            raise
        return get(None)


def search_filter() -> dict[str, Any]:
    """What the PACS is asked to search for: MONAI Label's setting where somebody made it, else everything.

    MONAI Label's default is CT alone. It hands all settings to its background processes as environment variables,
    where a default cannot be told from a wish; so what is decided here is written there.
    """
    if FILTER not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}
        os.environ[FILTER] = json.dumps({})
    return dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)


def poll_seconds(told: float | None) -> float:
    """How often a server asks the PACS what is new: `--conf poll`, else MONAI Label's setting if made."""
    if told is not None:
        return told
    made = EXPIRY in settings.model_fields_set
    return float(settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY) if made else POLL_SECONDS


def cache_folder() -> Path:
    """Where copies of what is in PACS are kept: MONAI Label's setting, else its usual place."""
    told = (
        settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or settings.MONAI_LABEL_DATASTORE_CACHE_PATH or ""
    ).strip()
    return Path(told) if told else Path.home() / ".cache" / "monailabel" / "dicom"
