"""Segmentations that turned out to be of no use for an image, remembered by the server and its background processes."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from filelock import FileLock

from fewshot import __version__
from fewshot.errors import FewshotError
from lib.files import read_json, stamp, write_json
from lib.pacs.listing import Key

logger = logging.getLogger(__name__)

Pair = tuple[Key, Key]
"""A SEG series and the image that it was tried on, each in the state that it was in."""


class Unusable:
    """A small JSON file: `{"version": ..., "segs": [[[SEG, files], [image, files], reason], ...]}`.

    What another version of this program found does not count, as that may have been unable to read what this one can.

    Args:
        file: None to remember until the end of the process alone.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: object = None
        self._pairs: dict[Pair, str] = {}

    def read(self) -> dict[Pair, str]:
        """All of them with the reason; callers must not change it."""
        if self._file and (seen := stamp(self._file)) != self._seen:
            self._pairs, self._seen = _load(self._file), seen
        return self._pairs

    def add(self, pair: Pair, reason: str, *, listed: Collection[Key]) -> None:
        """Remember one; those of SEG series that are not listed any more are forgotten."""
        self._pairs = {**self._pairs, pair: reason}
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._file}.lock"):
                kept = {other: why for other, why in _load(self._file).items() if other[0] in listed}
                segs = [[*other, why] for other, why in {**kept, pair: reason}.items()]
                write_json(self._file, {"version": __version__, "segs": segs})
        except OSError as error:
            logger.warning("%s could not be written (%s): make room, or mend its rights.", self._file, error)


def _load(file: Path) -> dict[Pair, str]:
    try:
        content: Any = read_json(file)
        if content["version"] != __version__:
            return {}
        return {
            ((str(seg[0]), int(seg[1])), (str(image[0]), int(image[1]))): str(why)
            for seg, image, why in content["segs"]
        }
    except FileNotFoundError:
        return {}
    except (FewshotError, LookupError, TypeError, ValueError) as error:
        # what is lost is found again, each time somebody tries such a segmentation
        logger.warning("%s is not what was written there (%s) and is not used.", file, error)
        return {}
