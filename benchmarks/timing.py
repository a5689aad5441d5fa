"""Time two ways of doing the same thing in one run, in turns, so that a noisy machine disturbs both alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Row:
    """One line of the table.

    Attributes:
        name: what is compared.
        plain: seconds (or megabytes) of the plain way.
        ours: seconds (or megabytes) of ours.
        ratio: plain / ours unless the name says otherwise.
        target: the bound that the ratio or time should keep, as text.
        met: whether it did.
    """

    name: str
    plain: float
    ours: float
    ratio: float
    target: str
    met: bool

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(plain: Callable[[], Any], ours: Callable[[], Any], *, repeats: int = 5) -> tuple[float, float]:
    """Best of several calls of each way, in turns, after one warm-up of each."""
    plain(), ours()
    pairs = [(seconds(plain), seconds(ours)) for _ in range(repeats)]
    return min(p for p, _ in pairs), min(o for _, o in pairs)
