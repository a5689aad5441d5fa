"""Asks a PACS again and again what it has, and tells what changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from lib.pacs.catalog import Catalog, Contents, Seg
from lib.pacs.errors import PacsError

logger = logging.getLogger(__name__)

FIRST_SECONDS = 10.0
"""So long a start waits for the PACS to say what it has; after that it goes on without."""

Seen = Callable[[Contents, Contents], None]
"""Called with what the PACS had before and has now; must not wait for anything."""

Labelled = Callable[[list[str], bool], None]
"""Called, in a thread of its own, with the images for which another SEG by a person counts now, and whether that
happened since the start."""


class Watch:
    """What a PACS has, as far as it is known.

    Args:
        catalog: asks the PACS.
        seen: called whenever it was asked, before anybody else knows.
        labelled: called when other labels count.

    Attributes:
        contents: replaced as a whole, never changed.
        problem: why the PACS does not answer; None while it does.
    """

    def __init__(self, catalog: Catalog, *, seen: Seen, labelled: Labelled) -> None:
        self._catalog, self._seen, self._labelled = catalog, seen, labelled
        self._asking = threading.Lock()
        self._answered = False
        self.contents = Contents()
        self.problem: str | None = None

    def ask(self, *, own: str | None = None) -> None:
        """Ask the PACS now.

        Args:
            own: the image whose label this server has just stored, of which nobody need be told.

        Raises:
            PacsError: if it does not say; what was known stays.
        """
        with self._asking:
            try:
                now = self._catalog.ask()
            except PacsError as error:
                self._note(str(error))
                raise
            before, since = self._replace(now), self._answered
            self._answered = True
            self._note(None)
        changed = [
            image
            for image, seg in now.persons.items()
            if image != own and (image not in before.persons or before.persons[image].key != seg.key)
        ]
        if changed:
            threading.Thread(
                target=self._tell, args=(changed, since), name="labels in the PACS", daemon=True
            ).start()

    def follow(self, seconds: float) -> None:
        """From now on ask every few seconds in the background; waits a while for the first answer."""
        first = threading.Event()
        threading.Thread(target=self._run, args=(seconds, first), name="ask the PACS", daemon=True).start()
        first.wait(FIRST_SECONDS)

    def leave_out(self, seg: Seg, reason: str) -> None:
        """A SEG cannot be used for its image as it is now: from now on an older one counts."""
        with self._asking:
            self._replace(self._catalog.leave_out(seg, reason))

    def _run(self, seconds: float, first: threading.Event) -> None:
        while True:
            try:
                self.ask()
            except PacsError:
                pass  # `problem` tells, and the log has it
            except Exception:
                # whatever it was, the next answer may be better, and without this thread nothing new is ever seen
                logger.exception("The PACS %s could not be asked", self._catalog.url)
            first.set()
            time.sleep(seconds)

    def _replace(self, now: Contents) -> Contents:
        before, self.contents = self.contents, now
        self._seen(before, now)
        return before

    def _tell(self, images: list[str], since: bool) -> None:
        try:
            self._labelled(images, since)
        except Exception:
            # no request waits for this, so that nobody but the log hears of it
            logger.exception("New labels in the PACS %s were not prepared", self._catalog.url)

    def _note(self, problem: str | None) -> None:
        """Keep why the PACS does not answer, and log it when that changes."""
        if problem and self.problem is None:
            logger.error("%s Waiting for it: it is asked again and again.", problem)
        elif problem is None and self.problem:
            logger.warning("The PACS %s is back.", self._catalog.url)
        self.problem = problem
