"""The report's heat map of which label was taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BACKGROUND = "background"
WORST = 5
"""How many mix-ups are named in words."""
WORTH_NAMING = 0.01
"""Share of a label's voxels below which a mix-up is not named."""

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Share:
    """A cell: share of the truth's voxels, as text in percent, and how strongly it is coloured."""

    text: str
    title: str
    strength: str
    right: bool

    @property
    def strong(self) -> bool:
        """Whether the colour is so strong that light text on it would not be read."""
        return float(self.strength) > 0.85


@dataclass(frozen=True)
class HeatMap:
    """Names of the columns, rows of cells (None where nothing was predicted), and the worst mix-ups in words."""

    names: list[str]
    rows: list[tuple[str, list[Share | None]]]
    worst: list[str]


def heat_map(counts: Counts) -> HeatMap:
    """Rows of truth in shares of their voxels; the background comes last.

    Args:
        counts: true name -> predicted name -> voxels.
    """
    every = dict.fromkeys([*counts, *(name for of in counts.values() for name in of)])
    names = [name for name in every if name != BACKGROUND] + [name for name in every if name == BACKGROUND]
    shares = {name: _shares(counts.get(name, {})) for name in names}
    rows = [(name, [_cell(name, other, shares[name].get(other, 0.0)) for other in names]) for name in names]
    mixed = sorted(
        ((share, name, other) for name, of in shares.items() for other, share in of.items() if name != other),
        key=lambda item: (-item[0], item[1:]),
    )
    worst = [
        f"{name} taken for {other}: {share:.0%} of its voxels"
        for share, name, other in mixed
        if share >= WORTH_NAMING and BACKGROUND not in (name, other)
    ]
    return HeatMap(names, rows, worst[:WORST])


def _shares(of: Mapping[str, int]) -> dict[str, float]:
    total = sum(of.values())
    return {name: voxels / total for name, voxels in of.items()} if total else {}


def _cell(name: str, other: str, share: float) -> Share | None:
    if share <= 0:
        return None
    right = name == other
    percent = 100 * share
    # rounding up to 100 would deny the errors beside it
    text = "100" if share == 1 else f"{min(percent, 99):.0f}" if percent >= 0.5 else "·"
    title = f"{name} found right: {percent:.2f} %" if right else f"{name} taken for {other}: {percent:.2f} %"
    # errors are few: their root shows also the small ones
    return Share(text, title, f"{share if right else share**0.5:.2f}", right)
