"""What a PACS has: image series, and which segmentations belong to them."""

from __future__ import annotations

import calendar
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from fewshot.errors import FewshotError
from fewshot.volumes.dicom import NOT_IMAGES
from lib.pacs.errors import GONE, NOT_DICOM, PacsError, told
from lib.pacs.seg_reading import SegHeader, read_header

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

ROUND = 100
"""Servers that cut off long answers do so at a multiple of this."""


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
    info: Mapping[str, str] = field(compare=False)

    @property
    def key(self) -> Key:
        """Changes with the series."""
        return self.uid, self.instances

    def __str__(self) -> str:
        patient = self.info.get("PatientID", "")
        return f"the series {self.uid}" + (f" of patient {patient}" if patient else "")


@dataclass(frozen=True)
class Seg:
    """A segmentation of an image: the newest object of a SEG series."""

    header: SegHeader
    instance: str
    key: Key

    @property
    def series(self) -> str:
        """Its SeriesInstanceUID."""
        return self.header.series

    @property
    def order(self) -> tuple[str, str]:
        """The newest comes last, always in one order."""
        return self.header.created, self.series

    @property
    def seconds(self) -> int:
        """When it was made, in seconds since 1970; 0 where it does not say."""
        with suppress(ValueError, OverflowError):
            return calendar.timegm(time.strptime(self.header.created[:14], "%Y%m%d%H%M%S"))
        return 0


@dataclass(frozen=True)
class Contents:
    """What a PACS has at one moment.

    Attributes:
        images: image series by their UID.
        persons: by image, the SEG by a person that counts: the newest usable one.
        models: by image, the newest usable SEG that a model made.
    """

    images: Mapping[str, Series] = field(default_factory=dict)
    persons: Mapping[str, Seg] = field(default_factory=dict)
    models: Mapping[str, Seg] = field(default_factory=dict)

    def segs(self) -> list[Seg]:
        """All that count."""
        return [*self.persons.values(), *self.models.values()]


class Catalog:
    """Asks a PACS what it has; headers of a SEG series are fetched once. Not for several threads.

    Args:
        client: asks the PACS.
        search: QIDO filter for images; empty for all.
        modalities: those wanted; empty for all.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search: Mapping[str, Any] | None = None,
        modalities: Collection[str] = (),
    ) -> None:
        self._client, self._search = client, dict(search or {})
        self._modalities = {modality.upper() for modality in modalities}
        self._images: dict[str, Series] = {}
        self._others: set[str] = set()
        self._segs: dict[Key, Seg] = {}
        self._bad: set[tuple[Key, Key | None]] = set()
        self._told: set[object] = set()

    @property
    def url(self) -> str:
        return str(self._client.base_url)

    def ask(self) -> Contents:
        """Ask the PACS: one or two queries, and the headers of SEG series that are new or changed.

        Raises:
            PacsError: if it does not say; what was known before stays.
        """
        listed = self._list(self._search)
        segs = self._list({"Modality": "SEG"}) if self._search else listed
        segs = [series for series in segs if series.modality == "SEG"]
        headers = {
            series.key: self._segs.get(series.key) or self._read(series)
            for series in segs
            if (series.key, None) not in self._bad
        }
        self._images = {series.uid: series for series in listed if self._wanted(series)}
        self._others = {series.uid for series in listed} - set(self._images)
        self._segs = {key: seg for key, seg in headers.items() if seg}
        return self.contents()

    def leave_out(self, seg: Seg, reason: str) -> Contents:
        """From now on an older SEG counts for the image as it is now; returns what the PACS has then."""
        image = self._images.get(seg.header.image_series)
        self._bad.add((seg.key, image.key if image else None))
        self._tell((seg.key, image), f"{seg.series} of the image {seg.header.image_series}", reason)
        return self.contents()

    def contents(self) -> Contents:
        """What the PACS had when it was asked last, without the SEGs that cannot be used."""
        persons: dict[str, Seg] = {}
        models: dict[str, Seg] = {}
        for key, seg in sorted(self._segs.items(), key=lambda item: item[1].order):
            image = self._images.get(seg.header.image_series)
            if image is None:
                self._tell_stranger(seg)
            elif (key, image.key) not in self._bad:
                (models if seg.header.by_model else persons)[image.uid] = seg
        return Contents(self._images, persons, models)

    def _wanted(self, series: Series) -> bool:
        if self._modalities:
            return series.modality in self._modalities
        return series.modality not in NO_PICTURES

    def _list(self, search: Mapping[str, Any]) -> list[Series]:
        """All series that a search finds, page by page where the PACS cuts its answer."""
        found: dict[str, Series] = {}
        while True:
            with told(self.url, "list of series", query=True):
                page = self._client.search_for_series(
                    search_filters=dict(search), fields=[INSTANCES], offset=len(found) or None
                )
                listed = [series for entry in page if (series := self._series(entry))]
            new = {series.uid: series for series in listed if series.uid not in found}
            found |= new
            if not new or len(page) % ROUND:
                return list(found.values())

    def _series(self, entry: Mapping[str, Any]) -> Series | None:
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
            return None
        info = {name: first(tag) or "UNK" for name, tag in TAGS.items()}
        return Series(uid, study, first(MODALITY).upper(), int(float(count)) if count else 0, info)

    def _read(self, series: Series) -> Seg | None:
        """The newest object of a SEG series; None if there is none that can be used."""
        what = f"the headers of the SEG series {series.uid}"
        try:
            with told(self.url, what):
                entries = self._client.retrieve_series_metadata(series.study, series.uid)
            segs = list(_headers(entries, series))
            if not segs:
                raise FewshotError("it has no object with a segment.")
        except PacsError as error:
            if error.lost:
                raise
            if error.status != GONE:  # deleted since it was listed
                self._tell(series.key, series.uid, str(error))
            return None
        except FewshotError as error:
            self._bad.add((series.key, None))
            self._tell(series.key, series.uid, str(error))
            return None
        return max(segs, key=lambda seg: (seg.order, seg.instance))

    def _tell_stranger(self, seg: Seg) -> None:
        image = seg.header.image_series
        if image not in self._others:  # an image that is there and not wanted is no news
            self._tell(seg.key, seg.series, f"it belongs to the series {image}, which is no image here.")

    def _tell(self, key: object, what: str, reason: str) -> None:
        if key not in self._told:
            logger.warning("The SEG series %s is left out: %s", what, reason)
        self._told.add(key)


def _headers(entries: list[dict[str, Any]], series: Series) -> Iterator[Seg]:
    """The objects of a SEG series that have a segment.

    Raises:
        FewshotError: if one cannot be used.
    """
    for entry in entries:
        try:
            dataset = Dataset.from_json(entry, bulk_data_uri_handler=lambda _uri: None)
            instance = str(dataset.SOPInstanceUID)
        except NOT_DICOM as error:
            raise FewshotError(f"its headers are damaged ({error}).") from error
        header = read_header(dataset)
        if header.segments:
            yield Seg(header, instance, series.key)


def is_uid(text: str) -> bool:
    """Whether a text can be a UID, and so the name of a file."""
    return re.fullmatch(r"[0-9][0-9.]{0,63}", text) is not None
