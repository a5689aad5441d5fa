"""Images that were read lately, kept in memory: every click of an annotator asks for the same one again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import stamp
from lib.studies import StudiesDescription
from lib.templates import read_image

if TYPE_CHECKING:
    from fewshot.volumes import Volume

KEPT = 4
"""Images in memory."""

BYTES = 2 << 30
"""Memory that they may take together; the one asked for last is kept whatever it takes."""

Key = tuple[str, int, int, int]


class Images:
    """Reads images and keeps the last few; a file that was replaced is read again.

    Two requests for an image that is being read wait for the same reading.

    Args:
        description: what dataset.json says of all images.
    """

    def __init__(self, description: StudiesDescription) -> None:
        self._description = description
        self._mutex = threading.Lock()
        self._read: OrderedDict[Key, Future[Volume]] = OrderedDict()

    def read(self, path: Path, *, keep: bool = True) -> Volume:
        """An image; callers must not change it.

        Args:
            path: its file or folder.
            keep: False for work in the background, which must not push out what an annotator looks at.

        Raises:
            FewshotError: if it cannot be read as one volume.
        """
        key: Key = (str(path), *stamp(path))
        with self._mutex:
            known = self._read.get(key)
            if known is None and keep:
                mine: Future[Volume] = Future()
                self._read[key] = mine
            if keep:
                self._read.move_to_end(key)
        if known is not None:
            return known.result()
        if not keep:
            return read_image(path, self._description)
        try:
            mine.set_result(read_image(path, self._description))
        except BaseException as error:
            with self._mutex:
                self._read.pop(key, None)
            mine.set_exception(error)
            raise
        self._forget(key)
        return mine.result()

    def _forget(self, newest: Key) -> None:
        """Drop other versions of the newest image, then the least recently used ones, down to the limits."""
        with self._mutex:
            done = [key for key, image in self._read.items() if image.done() and key != newest]
            for key in done:
                if key[0] == newest[0]:
                    del self._read[key]
            while len(self._read) > KEPT or self._bytes() > BYTES:
                oldest = next((key for key in done if key in self._read), None)
                if oldest is None:
                    return
                del self._read[oldest]

    def _bytes(self) -> int:
        return sum(image.result().array.nbytes for image in self._read.values() if image.done())
