"""One computation at a time in a process, and what may wait gives way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fewshot.progress import Progress, silent

if TYPE_CHECKING:
    from fewshot.volumes import Volume

LOOK_SECONDS = 0.25
"""How often a request that waits for another computation looks whether it has been cancelled."""

REST_SECONDS = 0.05
"""How often work in the background looks whether requests are done."""


class Turns:
    """Requests compute one after the other; work in the background gives way, unless they wait for what it computes."""

    def __init__(self) -> None:
        self._computing = threading.Lock()
        self._counting = threading.Lock()
        self._wanted: Counter[str] = Counter()

    @contextmanager
    def take(self, volumes: Iterable[Volume], progress: Progress = silent) -> Iterator[None]:
        """A request computes with these volumes; while it waits, an exception from `progress` calls it off."""
        wanted = Counter(volume.digest for volume in volumes)
        with self._counting:
            self._wanted = self._wanted + wanted
        try:
            progress("wait", 0, 1)
            while not self._computing.acquire(timeout=LOOK_SECONDS):
                progress("wait", 0, 1)
            try:
                yield
            finally:
                self._computing.release()
        finally:
            with self._counting:
                self._wanted = self._wanted - wanted

    @contextmanager
    def spare(self) -> Iterator[None]:
        """Work in the background computes when no request wants to."""
        while self._wanted:
            time.sleep(REST_SECONDS)
        with self._computing:
            yield

    def give_way(self, volume: Volume) -> None:
        """Wait in the middle of work in the background while requests compute, except with this volume."""
        while self._wanted and not self._wanted[volume.digest]:
            time.sleep(REST_SECONDS)
