"""Lists of a PACS' series (QIDO), complete also where the PACS cuts its answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

from fewshot.volumes.dicom import NOT_IMAGES
from lib.pacs.errors import told

logger = logging.getLogger(__name__)

NO_PICTURES = frozenset(
    {*NOT_IMAGES, "ANN", "ASMT", "AU", "CTPROTOCOL", "ECG", "EEG", "EMG", "EPS", "HD", "PLAN", "RESP", "RWV"}
    | {"SMR", "STAIN", "TEXTUREMAP", "XAPROTOCOL"}
)
"""Modalities of series that hold no image."""

SERIES, STUDY, MODALITY, INSTANCES = "0020000E", "0020000D", "00080060", "00201209"
TAGS = {
    "StudyDate": "00080020",
    "StudyTime": "00080030",
    "Modality": MODALITY,
    "RetrieveURL": "00081190",
    "PatientID": "00100020",
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "SeriesDescription": "0008103E",
}
"""What `/datastore/image/info` tells of an image; the first seven as MONAI Label does."""

AGAIN = 12
"""After so many lists a PACS that did not cut its answer is tested again."""

NO_MORE = (400, 404, 416, 501)
"""Answers of a PACS that does not know how to go on after its first answer."""

Key = tuple[str, int]
"""A series and how many files it had; one that changed is another thing."""


@dataclass(frozen=True)
class Series:
    """A series as the PACS lists it.

    Attributes:
        uid: SeriesInstanceUID, the image's id in the datastore.
        study: StudyInstanceUID.
        modality: as in the PACS, such as "CT" or "PT".
        instances: how many files it has, 0 where the PACS does not say.
        info: what viewers are told.
    """

    uid: str
    study: str
    modality: str
    instances: int
    info: Mapping[str, str] = field(hash=False)

    @property
    def key(self) -> Key:
        """Changes with the series."""
        return self.uid, self.instances

    def __str__(self) -> str:
        patient = self.info.get("PatientID", "")
        return f"the series {self.uid}" + (f" of patient {patient}" if patient else "")


class Listing:
    """Asks a PACS for lists of series. Not for several threads.

    Args:
        client: asks the PACS.
    """

    def __init__(self, client: DICOMwebClient) -> None:
        self._client = client
        self._whole: dict[str, tuple[int, int]] = {}  # by search: so many entries were all, so often believed
        self._told: set[str] = set()

    def ask(self, search: Mapping[str, Any]) -> list[Series]:
        """All series that a search finds.

        A PACS may cut its answer at any number. So it is asked what follows until nothing does; where nothing
        followed as many entries the last time, that is done only now and then.

        Raises:
            PacsError: if the PACS does not say.
        """
        found: dict[tuple[str, str], Series | None] = {}
        name = json.dumps(search, sort_keys=True, default=str)
        whole, left = self._whole.get(name, (0, 0))
        seen = pages = 0
        while True:
            page = self._page(search, seen)
            new = {key: series for key, series in page if key not in found}
            found |= new
            if not new:
                break
            if not pages and left and len(page) <= whole:
                self._whole[name] = whole, left - 1
                return [series for series in found.values() if series]
            seen, pages = seen + len(page), pages + 1
        self._whole[name] = (seen, AGAIN) if pages <= 1 else (0, 0)
        return [series for series in found.values() if series]

    def _page(self, search: Mapping[str, Any], offset: int) -> list[tuple[tuple[str, str], Series | None]]:
        """One answer: what each entry calls itself, and the series if that is one."""
        with told(str(self._client.base_url), "list of series", query=True):
            try:
                page = self._client.search_for_series(
                    search_filters=dict(search), fields=[INSTANCES], offset=offset or None
                )
            except requests.HTTPError as error:
                if offset and error.response is not None and error.response.status_code in NO_MORE:
                    return []
                raise
            return [self._entry(entry) for entry in page]

    def _entry(self, entry: Mapping[str, Any]) -> tuple[tuple[str, str], Series | None]:
        """A QIDO answer; parsed by hand, because it is done every few seconds for all series of the PACS."""

        def first(tag: str) -> str:
            values = entry.get(tag, {}).get("Value") or [""]
            return "" if values[0] is None else str(values[0])

        if SERIES not in entry or STUDY not in entry:
            raise KeyError(SERIES)
        uid, study, count = first(SERIES), first(STUDY), first(INSTANCES)
        if not is_uid(uid) or not is_uid(study):
            if uid not in self._told:
                logger.warning("A series is left out: %r in the study %r is no UID.", uid, study)
            self._told.add(uid)
            return (study, uid), None
        info = {name: first(tag) or "UNK" for name, tag in TAGS.items()}
        series = Series(uid, study, first(MODALITY).upper(), int(float(count)) if count else 0, info)
        return (study, uid), series


def is_uid(text: str) -> bool:
    """Whether a text can be a UID, and so the name of a file."""
    return re.fullmatch(r"[0-9][0-9.]{0,63}", text) is not None
