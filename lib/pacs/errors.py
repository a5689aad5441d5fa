"""What goes wrong between this server and a PACS, as sentences."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from pydicom.errors import InvalidDicomError

from fewshot.errors import FewshotError

GONE = 404
UNAVAILABLE = 503
REFUSED = (401, 403)

NOT_DICOM = (
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError),
    *(struct.error, InvalidDicomError),
)
"""What parsing of JSON or DICOM raises where it was promised and something else came."""


class PacsError(FewshotError):
    """The PACS does not do what it is asked.

    Attributes:
        status: the HTTP status to answer with: 404 for what is not in the PACS, else 503.
        lost: it does not answer at all, so that asking it for something else is no use.
        slow: it could be reached, and then said nothing for too long; it may be quicker with something else.
    """

    def __init__(
        self, sentence: str, *, status: int = UNAVAILABLE, lost: bool = False, slow: bool = False
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.lost = lost
        self.slow = slow


@contextmanager
def told(url: str, what: str, *, query: bool = False) -> Iterator[None]:
    """Turn failures of requests to a PACS, and of parsing its answers, into `PacsError`.

    Args:
        url: its DICOMweb address.
        what: what it is asked for.
        query: it is a search, which always finds its address, not something that may have been deleted.
    """
    try:
        yield
    except requests.HTTPError as error:
        raise _answered(error, url, what, query=query) from error
    except requests.Timeout as error:
        raise PacsError(
            f"The PACS {url} took too long over {what}: try again later.",
            lost=True,
            slow=not isinstance(error, requests.ConnectTimeout),
        ) from error
    except requests.JSONDecodeError as error:
        raise _not_dicom(url, what) from error
    except requests.ConnectionError as error:
        raise PacsError(
            f"The PACS {url} cannot be reached ({_reason(error)}): start it, or check the address.", lost=True
        ) from error
    except requests.RequestException as error:
        raise PacsError(f"The PACS {url} broke off over {what} ({error}): try again later.") from error
    except NOT_DICOM as error:
        raise _not_dicom(url, what) from error


def _answered(error: requests.HTTPError, url: str, what: str, *, query: bool) -> PacsError:
    code = error.response.status_code if error.response is not None else 0
    if code in REFUSED:
        return PacsError(
            f"The PACS {url} refuses {what} ({code}): set MONAI_LABEL_DICOMWEB_USERNAME and "
            "MONAI_LABEL_DICOMWEB_PASSWORD to an account that may read and write."
        )
    if code in (GONE, 410) and query:
        return PacsError(f"{url} knows no {what} ({code}): is that the DICOMweb address of the PACS?")
    if code in (GONE, 410):
        return PacsError(f"The PACS {url} does not have {what} ({code}): was it deleted?", status=GONE)
    return PacsError(f"The PACS {url} failed over {what} ({code}): look into its log, or try again later.")


def _not_dicom(url: str, what: str) -> PacsError:
    return PacsError(
        f"The answer of {url} to a request for {what} is not DICOM: is that the DICOMweb address of the PACS?"
    )


def _reason(error: requests.ConnectionError) -> str:
    """The innermost cause, without the addresses of Python objects that the outer ones tell."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return getattr(cause, "strerror", None) or type(cause).__name__
