"""Images that a PACS failed to hand over lately, so that they are not offered again at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lib.pacs.errors import PacsError

SECONDS = 60.0
"""So long an image is not offered again."""


class FailedLately:
    """Remembers for a while which images could not be had; for several threads."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[float, PacsError]] = {}

    @contextmanager
    def noted(self, image: str) -> Iterator[None]:
        """Remember it if an image cannot be had; a PACS that cannot be reached is no fault of the image."""
        try:
            yield
        except PacsError as error:
            if error.slow or not error.lost:
                self._failed[image] = time.monotonic(), error
            raise
        self.forget(image)

    def forget(self, image: str) -> None:
        """Offer it again."""
        self._failed.pop(image, None)

    def errors(self) -> dict[str, PacsError]:
        """Those that are not to be offered now, and why."""
        since = time.monotonic() - SECONDS
        return {image: error for image, (when, error) in self._failed.copy().items() if when > since}
