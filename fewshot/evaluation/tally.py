"""How far an evaluation has come, over all its seeds, cases and methods."""

from __future__ import annotations

from collections.abc import Mapping

from fewshot.progress import Progress

ALMOST = 0.99
"""How far a unit comes by its own account; it is done when its result is kept."""


class Tally:
    """Counts what is done of each stage, and passes on what happens within a unit as a fraction of it.

    Args:
        progress: who is told; raising from it stops the evaluation.
        totals: stage -> units of the whole evaluation.

    Attributes:
        stopped: whether `progress` raised, which is no failure of the unit at hand.
    """

    def __init__(self, progress: Progress, totals: Mapping[str, int]) -> None:
        self._progress = progress
        self._totals = dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self.stopped = False

    def add(self, stage: str, count: int = 1) -> None:
        """So many units are done."""
        if count:
            self._done[stage] += count
            self._tell(stage, self._done[stage])

    def within(self, stage: str, *, start: float = 0.0, share: float = 1.0) -> Progress:
        """What to hand to the work on one unit; whatever stages it reports, the unit only grows.

        Args:
            stage: of the unit.
            start: how much of the unit is done already, as a fraction.
            share: how far this work brings it.
        """
        reached = start

        def report(inner: str, done: int, total: int, **values: float) -> None:
            nonlocal reached
            if inner != "features" and total > 0:
                reached = max(reached, start + (share - start) * min(ALMOST, done / total))
            self._tell(stage, self._done[stage] + reached, **values)

        return report

    def _tell(self, stage: str, done: float, **values: float) -> None:
        try:
            self._progress(stage, done, self._totals[stage], **values)
        except BaseException:
            self.stopped = True
            raise
