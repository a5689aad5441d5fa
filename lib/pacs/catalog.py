"""What a PACS has: image series, and which segmentations belong to them."""

from __future__ import annotations

import calendar
import logging
import math
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from fewshot.errors import FewshotError
from lib.pacs.errors import GONE, PacsError, told
from lib.pacs.listing import NO_PICTURES, Key, Listing, Series, is_uid
from lib.pacs.seg_reading import HEADER_TAGS, SegHeader, read_header
from lib.pacs.unusable import Unusable

logger = logging.getLogger(__name__)

LATER_SECONDS = (60.0, 600.0)
"""Headers that took too long are asked for again after the first, then after twice as long, up to the last."""

TOO_SLOW = 3
"""After so many headers that took too long, one after the other, the PACS itself is taken to be stuck."""


@dataclass(frozen=True)
class Seg:
    """A segmentation of an image: the newest usable object of a SEG series.

    Attributes:
        header: what it says of itself; the UIDs of its series and study are those that the PACS lists.
        instance: its SOPInstanceUID.
        key: its series.
    """

    header: SegHeader
    instance: str
    key: Key

    @property
    def series(self) -> str:
        """Its SeriesInstanceUID."""
        return self.key[0]

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
        listed: all SEG series, of whatever image.
        waiting: how many SEG series were not looked into yet, for lack of time.
        answered: whether the PACS has ever said what it has.
    """

    images: Mapping[str, Series] = field(default_factory=dict)
    persons: Mapping[str, Seg] = field(default_factory=dict)
    models: Mapping[str, Seg] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()
    waiting: int = 0
    answered: bool = False

    def segs(self) -> list[Seg]:
        """All that count."""
        return [*self.persons.values(), *self.models.values()]


class Catalog:
    """Asks a PACS what it has; headers of a SEG series are fetched once.

    One thread may ask at a time; others may use `contents` and `leave_out` meanwhile.

    Args:
        client: asks the PACS.
        search: QIDO filter for images; empty for all.
        modalities: those wanted; empty for all.
        unusable: file that remembers what is left out; shared by processes.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search: Mapping[str, Any] | None = None,
        modalities: Collection[str] = (),
        *,
        unusable: Path | None = None,
    ) -> None:
        self._client, self._search = client, dict(search or {})
        self._modalities = {modality.upper() for modality in modalities}
        self._listing, self._unusable = Listing(client), Unusable(unusable)
        self._answered = False
        self._images: dict[str, Series] = {}
        self._others: set[str] = set()
        self._listed: frozenset[Key] = frozenset()
        self._segs: dict[Key, Seg] = {}
        self._waiting: deque[Series] = deque()
        self._useless: set[Key] = set()
        self._later: dict[Key, tuple[float, float]] = {}  # when to ask again, and how long that was put off
        self._told: set[object] = set()

    @property
    def url(self) -> str:
        return str(self._client.base_url)

    def ask(self, seconds: float | None = None) -> Contents:
        """Ask the PACS: one or two queries, and the headers of SEG series that are new or changed.

        Args:
            seconds: after so many no more headers are asked for; `waiting` tells how many are missing then, and
                the next call goes on with them. None for all.

        Raises:
            PacsError: if it does not say; what was known before stays, and so does what it said until then.
        """
        listed = self._listing.ask(self._search)
        segs = self._listing.ask({"Modality": "SEG"}) if self._search else listed
        segs = [series for series in segs if series.modality == "SEG"]
        keys = frozenset(series.key for series in segs)
        self._images = {series.uid: series for series in listed if self._wanted(series)}
        self._others = {series.uid for series in listed} - set(self._images)
        self._segs = {key: seg for key, seg in self._segs.items() if key in keys}
        self._useless &= keys
        self._later = {key: later for key, later in self._later.items() if key in keys}
        self._listed, self._answered = keys, True
        self._waiting = deque(series for series in segs if self._is_due(series.key))
        self._read_waiting(math.inf if seconds is None else time.monotonic() + seconds)
        return self.contents()

    def leave_out(self, seg: Seg, image: Series, reason: str) -> Contents:
        """From now on an older SEG counts for an image as it was; returns what the PACS has then.

        Args:
            seg: the one that cannot be used.
            image: what it was tried on.
            reason: why not, a sentence.
        """
        self._unusable.add((seg.key, image.key), reason, listed=self._listed)
        self._tell((seg.key, image.key), f"{seg.series} of the image {image.uid}", reason)
        return self.contents()

    def contents(self) -> Contents:
        """What the PACS had when it was asked last, without the SEGs that cannot be used."""
        persons: dict[str, Seg] = {}
        models: dict[str, Seg] = {}
        images, unusable = self._images, self._unusable.read()
        for key, seg in sorted(self._segs.items(), key=lambda item: item[1].order):
            image = images.get(seg.header.image_series)
            if image is None:
                self._tell_stranger(seg)
            elif reason := unusable.get((key, image.key)):
                self._tell((key, image.key), f"{seg.series} of the image {image.uid}", reason)
            else:
                (models if seg.header.by_model else persons)[image.uid] = seg
        listed = frozenset(uid for uid, _ in self._listed)
        return Contents(images, persons, models, listed, len(self._waiting), self._answered)

    def _wanted(self, series: Series) -> bool:
        if self._modalities:
            return series.modality in self._modalities
        return series.modality not in NO_PICTURES

    def _is_due(self, key: Key) -> bool:
        """Whether the headers of a SEG series are to be asked for."""
        if key in self._segs or key in self._useless:
            return False
        return self._later.get(key, (0.0, 0.0))[0] <= time.monotonic()

    def _read_waiting(self, end: float) -> None:
        """Read headers until none is left or it is late; each that came is kept, whatever comes after it.

        Raises:
            PacsError: if the PACS cannot be reached any more, or takes too long over one series after another.
        """
        slow = 0
        while self._waiting and time.monotonic() < end:
            series = self._waiting.popleft()
            try:
                self._segs = {**self._segs, series.key: self._read(series)}  # others may look at it meanwhile
            except PacsError as error:
                slow = slow + 1 if error.slow else 0
                if error.slow:
                    first, last = LATER_SECONDS
                    wait = min(2 * self._later.get(series.key, (0.0, first / 2))[1], last)
                    self._later[series.key] = time.monotonic() + wait, wait
                if (error.lost and not error.slow) or slow == TOO_SLOW:
                    raise
                if error.status != GONE:  # deleted since it was listed
                    self._tell(series.key, series.uid, str(error))
            except Exception as error:
                # whatever one series has in it, the others must be seen
                self._useless.add(series.key)
                known = isinstance(error, FewshotError)
                reason = str(error) if known else f"it cannot be read ({type(error).__name__}: {error})."
                self._tell(series.key, series.uid, reason)

    def _read(self, series: Series) -> Seg:
        """The newest usable object of a SEG series; others are told.

        Raises:
            PacsError: if the PACS does not send the headers.
            FewshotError: if there is no object that can be used.
        """
        with told(self.url, f"the headers of the SEG series {series.uid}"):
            entries = list(self._client.retrieve_series_metadata(series.study, series.uid))
        segs: list[Seg] = []
        reasons: list[str] = []
        for entry in entries:
            try:
                segs.append(_seg(entry, series))
            except FewshotError as error:
                reasons.append(str(error))
        if not segs:
            raise FewshotError(reasons[0] if reasons else "it has no object.")
        for reason in reasons:
            logger.warning("An object of the SEG series %s is left out: %s", series.uid, reason)
        return max(segs, key=lambda seg: (seg.order, seg.instance))

    def _tell_stranger(self, seg: Seg) -> None:
        image = seg.header.image_series
        # an image that is there and not wanted is no news, and where a search narrows the list nobody can tell
        if not self._search and image not in self._others:
            self._tell(seg.key, seg.series, f"it belongs to the series {image}, which is no image here.")

    def _tell(self, key: object, what: str, reason: str) -> None:
        if key not in self._told:
            logger.warning("The SEG series %s is left out: %s", what, reason)
        self._told.add(key)


def _seg(entry: Mapping[str, Any], series: Series) -> Seg:
    """One object of a SEG series as its metadata tell it.

    Raises:
        FewshotError: if it cannot be used.
    """
    try:
        # without its frames, of which there may be thousands
        dataset = Dataset.from_json({tag: entry[tag] for tag in HEADER_TAGS if tag in entry})
        instance = str(dataset.SOPInstanceUID)
        header = read_header(dataset)
    except FewshotError:
        raise
    except Exception as error:
        # values of a wrong kind make pydicom and our own code raise anything, and the PACS has others to be read
        raise FewshotError(f"its headers are damaged ({type(error).__name__}: {error}).") from error
    if not is_uid(instance):
        raise FewshotError(f"its headers are damaged (SOPInstanceUID {instance!r}).")
    if header.series not in ("", series.uid):
        raise FewshotError(f"its headers say that it is the series {header.series}: store it again.")
    return Seg(replace(header, series=series.uid, study=series.study), instance, series.key)
