"""Asks a PACS again and again what it has, and tells what changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from lib.pacs.catalog import Catalog, Contents, Seg
from lib.pacs.errors import PacsError
from lib.pacs.listing import Series

logger = logging.getLogger(__name__)

FIRST_SECONDS = 10.0
"""So long a start waits for the PACS to say what it has; after that it goes on without."""

READ_SECONDS = 5.0
"""So long headers of segmentations are read while others may be waiting to ask; what is missing comes next."""

Seen = Callable[[Contents, Contents], None]
"""Called with what the PACS had before and has now (the same object where nothing changed); must not wait for
anything."""

Labelled = Callable[[list[str], bool], None]
"""Called, in a thread of its own, with the images for which another SEG by a person counts now, and whether that
happened since the start."""


@dataclass
class _Round:
    """One time of asking, for all who came before it began.

    Attributes:
        own: images whose label this server has just stored.
        answer: set when the PACS has answered, or has not.
    """

    own: set[str | None] = field(default_factory=set)
    answer: Future[None] = field(default_factory=Future)


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
        self._asking, self._replacing, self._mutex = threading.Lock(), threading.Lock(), threading.Lock()
        self._next: _Round | None = None
        self._following = self._complete = False
        self.contents = Contents()
        self.problem: str | None = None

    def ask(self, *, own: str | None = None) -> None:
        """Ask the PACS now; all who wait while it is being asked share the answer to the next question.

        After `follow`, a call reads headers of segmentations for a few seconds at most, and the next ones go on with
        them; else it reads them all, because nobody asks again.

        Args:
            own: the image whose label this server has just stored, of which nobody need be told.

        Raises:
            PacsError: if it does not say; what was known stays.
        """
        with self._mutex:
            mine, first = self._next or _Round(), self._next is None
            mine.own.add(own)
            self._next = mine
        if not first:
            mine.answer.result()
            return
        with self._asking:
            with self._mutex:
                self._next = None  # who comes from now on may know of something newer
            try:
                self._ask(mine.own)
            except BaseException as error:
                mine.answer.set_exception(error)
                raise
            mine.answer.set_result(None)

    def _ask(self, own: set[str | None]) -> None:
        since, failure = self._complete, None
        try:
            self._catalog.ask(READ_SECONDS if self._following else None)
        except PacsError as error:
            failure = error
        # first, so that nobody who sees what is new is told of a problem that is over
        self._note(str(failure) if failure else None)
        before, now = self._replace()  # also what it said until it failed
        self._complete = since or (now.answered and not now.waiting)
        changed = [
            image
            for image, seg in now.persons.items()
            if image not in own and (image not in before.persons or before.persons[image].key != seg.key)
        ]
        if changed:
            threading.Thread(
                target=self._tell, args=(changed, since), name="labels in the PACS", daemon=True
            ).start()
        if failure:
            raise failure

    def follow(self, seconds: float) -> None:
        """From now on ask every few seconds in the background; waits a while for the first answer."""
        self._following, first = True, threading.Event()
        threading.Thread(target=self._run, args=(seconds, first), name="ask the PACS", daemon=True).start()
        first.wait(FIRST_SECONDS)

    def leave_out(self, seg: Seg, image: Series, reason: str) -> None:
        """A SEG cannot be used for the image that it was tried on: from now on an older one counts."""
        self._catalog.leave_out(seg, image, reason)
        self._replace()

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
            if self.problem or not self.contents.waiting:
                time.sleep(seconds)

    def _replace(self) -> tuple[Contents, Contents]:
        """From now on what the catalog knows is what the PACS has; returns what it had before, and has."""
        with self._replacing:
            before, now = self.contents, self._catalog.contents()
            if now.answered:
                self.contents = before if now == before else now
                self._seen(before, self.contents)
            return before, self.contents

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
