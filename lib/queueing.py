"""The order in which inferences are computed: one at a time, annotators in turn, clicks first."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fewshot.errors import FewshotError
from fewshot.progress import Progress, silent

logger = logging.getLogger(__name__)


class Cancelled(FewshotError):  # noqa: N818 - something that is wanted, not an error
    """Somebody cancelled this inference, or its client went away."""


class DuplicateTicketError(FewshotError):
    """Another inference has this ticket."""


@dataclass(eq=False)
class Ticket:
    """One inference that waits or runs.

    Attributes:
        number: counts the tickets of a queue.
        id: the client's name for it, or one that was made.
        client: whose turn it takes.
        owner: who may cancel it, where users have names.
        urgent: goes before all that are not.
        ready: False while its image is still being fetched; others go first meanwhile.
        since: `time.monotonic` when it entered, and from its turn on when that came.
        cancelled: set as soon as nobody wants the result.
        wake: called from any thread when its turn comes, and when it is cancelled while it waits.
    """

    number: int
    id: str
    client: str
    owner: str
    model: str
    image: str
    urgent: bool
    ready: bool
    wake: Callable[[], object]
    since: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise Cancelled if this was cancelled."""
        if self.cancelled.is_set():
            raise Cancelled(f"The inference of {self.image} with {self.model} was cancelled.")


class InferenceQueue:
    """Who computes next.

    Clients take turns, the one served longest ago first, so that ten requests of one do not hold up the single
    request of another. Clicks, for which somebody waits at the screen, go before whole volumes.

    All methods may be called from any thread and return at once.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: list[Ticket] = []
        self._running: Ticket | None = None
        self._turns = 0
        self._served: dict[str, float] = {}

    def enter(
        self,
        model: str,
        image: str,
        client: str,
        *,
        ticket: str | None = None,
        owner: str = "",
        urgent: bool = False,
        ready: bool = True,
        wake: Callable[[], object] = lambda: None,
    ) -> Ticket:
        """Wait for a turn, which comes with `wake`, perhaps before this returns.

        Raises:
            DuplicateTicketError: if an inference that waits or runs has the same ticket.
        """
        with self._mutex:
            number = next(self._numbers)
            name = ticket or uuid.uuid4().hex[:12]
            if self._find(name):
                raise DuplicateTicketError(
                    f"The ticket {name} is in use: wait for its inference, or choose another one."
                )
            entered = Ticket(number, name, client, owner, model, image, urgent, ready, wake)
            # Somebody new comes after those who have waited for a turn, and before the one who has just had one.
            self._served.setdefault(client, self._turns - 0.5)
            self._waiting.append(entered)
            granted = self._grant()
        _wake(granted)
        return entered

    def make_ready(self, ticket: Ticket) -> None:
        """A ticket's image has been fetched."""
        with self._mutex:
            ticket.ready = True
            granted = self._grant()
        _wake(granted)

    def leave(self, ticket: Ticket) -> None:
        """A ticket's inference has ended, however it did: the next one has its turn."""
        with self._mutex:
            self._remove(ticket)
            granted = self._grant()
        _wake(granted)

    def find(self, ticket: str) -> Ticket | None:
        """The inference that waits or runs with a ticket."""
        with self._mutex:
            return self._find(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """Take a waiting inference out at once, tell a running one to stop; nothing if it is over."""
        with self._mutex:
            waiting = ticket in self._waiting
            if waiting:
                self._remove(ticket)
            if waiting or ticket is self._running:
                ticket.cancelled.set()
        _wake(ticket if waiting else None)

    def progress(self, ticket: object) -> Progress:
        """What a computation reports to: it raises `Cancelled` once the ticket is; without a ticket it is silent."""
        found = self.find(ticket) if isinstance(ticket, str) else None
        if found is None:
            return silent

        def check(*_step: Any, **_values: float) -> None:
            found.check()

        return check

    def report(self) -> dict[str, Any]:
        """The inference that runs and those that wait, in the order of their turns.

        Returns:
            ``running`` (None if none is) and ``waiting``, each with ``ticket``, ``client``, ``model``, ``image``,
            ``position`` (0 for the running one) and the ``seconds`` that it has been running or waiting.
        """
        with self._mutex:
            running, waiting = self._running, self._order()
        return {
            "running": _entry(running, 0) if running else None,
            "waiting": [_entry(ticket, position) for position, ticket in enumerate(waiting, start=1)],
        }

    def _find(self, ticket: str) -> Ticket | None:
        known = [*self._waiting, *([self._running] if self._running else [])]
        return next((entry for entry in known if entry.id == ticket), None)

    def _order(self) -> list[Ticket]:
        ranks: dict[int, int] = {}
        for ticket in self._waiting:
            ahead = [other for other in self._waiting if other.client == ticket.client]
            ranks[ticket.number] = [other for other in ahead if other.urgent == ticket.urgent].index(ticket)

        def turn(ticket: Ticket) -> tuple[bool, int, float, int]:
            return not ticket.urgent, ranks[ticket.number], self._served[ticket.client], ticket.number

        return sorted(self._waiting, key=turn)

    def _grant(self) -> Ticket | None:
        """Give the next one its turn, if nobody has it; returns whom to wake."""
        if self._running:
            return None
        chosen = next((ticket for ticket in self._order() if ticket.ready), None)
        if chosen:
            self._turns += 1
            self._served[chosen.client] = self._turns
            self._waiting.remove(chosen)
            self._running, chosen.since = chosen, time.monotonic()
        return chosen

    def _remove(self, ticket: Ticket) -> None:
        if ticket is self._running:
            self._running = None
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        present = {entry.client for entry in (*self._waiting, self._running) if entry}
        self._served = {client: turn for client, turn in self._served.items() if client in present}


def _wake(ticket: Ticket | None) -> None:
    """Outside of the lock: whoever is woken may ask the queue something."""
    if ticket:
        ticket.wake()


def _entry(ticket: Ticket, position: int) -> dict[str, Any]:
    return {
        "ticket": ticket.id,
        "client": ticket.client,
        "model": ticket.model,
        "image": ticket.image,
        "position": position,
        "seconds": round(time.monotonic() - ticket.since, 1),
    }
