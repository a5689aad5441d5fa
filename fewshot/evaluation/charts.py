"""The report's charts as inline SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, LEFT, RIGHT = 340, 8, 332
"""Layout in SVG units: about one pixel each on a phone."""
FONT = 12
CHARACTER = 6.6
"""Width of a character at FONT, rather too wide: names are placed by it."""
WIDEST = 7.5
"""The same in the widest fonts that browsers take, for names that would be cut off at the edge."""
LONGEST = 24
"""Characters of a name; the whole name is in the tooltip."""


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: baselines are squares, so that colour alone tells nothing."""

    name: str
    colour: str
    baseline: bool = False

    def at(self, x: float, y: float, radius: float = 4.5) -> str:
        """The method's symbol."""
        if self.baseline:
            side = 2 * radius - 1
            return (
                f'<rect x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:g}" height="{side:g}" '
                f'fill="{self.colour}"/>'
            )
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{self.colour}"/>'

    @property
    def label(self) -> str:
        """The name as text in the chart."""
        return escape(self.name if len(self.name) <= LONGEST else f"{self.name[: LONGEST - 1]}…")


def interval_plot(values: Sequence[tuple[Mark, float, tuple[float, float] | None]], *, title: str) -> str:
    """One line per method: its value, and its interval where it has one.

    Args:
        values: mark, value in [0, 1] and interval.
        title: what a screen reader says.
    """
    ends = [end for _, value, bounds in values for end in (value, *(bounds or ()))]
    axis = _Axis.around(ends, LEFT + 6, RIGHT - 6)
    row, top = 36, 2
    bottom = top + row * len(values)
    parts = [_open(WIDTH, bottom + 18, title), *_vertical_grid(axis, top, bottom)]
    for number, (mark, value, bounds) in enumerate(values):
        text = f"{value:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")
        y = top + row * number + 25
        parts.append(f"<g><title>{escape(mark.name)}: {text}</title>")
        parts.append(f'<text x="{LEFT}" y="{y - 10}">{mark.label}</text>')
        parts.append(f'<text x="{RIGHT}" y="{y - 10}" text-anchor="end" fill="var(--soft)">{text}</text>')
        if bounds:
            low, high = (f"{axis(end):.1f}" for end in bounds)
            parts.append(f'<path d="M{low} {y}H{high}M{low} {y - 4}v8M{high} {y - 4}v8" {_line(mark)}/>')
        parts.append(mark.at(axis(value), y) + "</g>")
    return "\n".join([*parts, "</svg>"])


def scatter_plot(points: Sequence[tuple[Mark, float, float]], *, title: str, across: str, up: str) -> str:
    """Value against seconds on a logarithmic axis, with names that do not cover one another.

    Args:
        points: mark, seconds above 0, and value in [0, 1].
        title: what a screen reader says.
        across: the name of the horizontal axis.
        up: the name of the vertical axis.
    """
    high, left, bottom = 250, 34, 208
    vertical = _Axis.around([value for _, _, value in points], bottom - 10, 32)
    low, top = (math.log10(pick(of for _, of, _ in points)) for pick in (min, max))
    low, top = (low - 0.15, top + 0.15) if top - low > 0.7 else (low - 0.5, top + 0.5)
    horizontal = _Axis(low, top, left + 8, RIGHT - 8, ())
    parts = [_open(WIDTH, high, title)]
    for tick in vertical.ticks:
        parts.append(f'<path d="M{left} {vertical(tick):.1f}H{RIGHT}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{left - 4}" y="{vertical(tick) + 4:.1f}" text-anchor="end" fill="var(--soft)">{tick:g}</text>'
        )
    for tick in _decades(low, top):
        at = f"{horizontal(math.log10(tick)):.1f}"
        parts.append(f'<path d="M{at} 22V{bottom}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{at}" y="{bottom + 15}" text-anchor="middle" fill="var(--soft)">{tick:g}</text>'
        )
    middle = (left + RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle" fill="var(--soft)">{escape(across)}</text>'
    )
    parts.append(f'<text x="2" y="12" fill="var(--soft)">{escape(up)}</text>')
    places = [(horizontal(math.log10(of)), vertical(value)) for _, of, value in points]
    texts = place_names(places, [mark.label for mark, _, _ in points], (left, 18, RIGHT, bottom))
    for (mark, of, value), (x, y), (tx, ty) in zip(points, places, texts, strict=True):
        parts.append(f"<g><title>{escape(mark.name)}: {value:.3f}, {of:.3g} s</title>{mark.at(x, y, 5)}")
        if abs(ty - 4 - y) > 12:  # too far off to belong to its point without a line
            inside = min(max(x, tx), tx + len(mark.label) * CHARACTER)
            parts.append(
                f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{inside:.1f}" y2="{ty - 4:.1f}" stroke="{mark.colour}"/>'
            )
        parts.append(f'<text x="{tx:.1f}" y="{ty:.1f}">{mark.label}</text></g>')
    return "\n".join([*parts, "</svg>"])


def box_plot(values: Sequence[tuple[Mark, Mapping[str, float]]], *, title: str) -> str:
    """One box per method on a scale from 0 to 1, with every case as a point.

    Args:
        values: mark, and name of the case -> value in [0, 1]; a method without cases keeps an empty row.
        title: what a screen reader says.
    """
    left = 4 + WIDEST * max((len(mark.name[:LONGEST]) for mark, _ in values), default=0)
    axis = _Axis(0, 1, left + 6, RIGHT - 4, (0, 0.25, 0.5, 0.75, 1))
    row, top = 22, 2
    bottom = top + row * len(values)
    parts = [_open(WIDTH, bottom + 18, title), *_vertical_grid(axis, top, bottom)]
    for number, (mark, cases) in enumerate(values):
        y = top + row * number + row / 2
        parts.append(f'<text x="{left - 2:.0f}" y="{y + 4}" text-anchor="end">{mark.label}</text>')
        parts += _box(mark, cases, axis, y) if cases else []
    return "\n".join([*parts, "</svg>"])


def place_names(
    points: Sequence[tuple[float, float]], names: Sequence[str], box: tuple[float, float, float, float]
) -> list[tuple[float, float]]:
    """Where the names of points stand (left end of the base line): beside their points, apart from one another.

    Args:
        points: x and y.
        names: as drawn at FONT.
        box: left, top, right and bottom that names must not cross.
    """
    left, top, right, bottom = box
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    placed = []
    for (x, y), name in zip(points, names, strict=True):
        width = len(name) * CHARACTER
        options = [
            (min(max(tx, left + 2), right - width), y + 4 + step * sign)
            for step in range(0, int(bottom - top), 7)
            for sign in (-1, 1)
            for tx in (x + 8, x - 8 - width, x - width / 2)
        ]
        rooms = [(tx, ty - 10, tx + width, ty + 3) for tx, ty in options]
        costs = [
            sum(_shared(room, other) for other in taken) + 1e4 * (room[1] < top or room[3] > bottom)
            for room in rooms
        ]
        best = costs.index(min(costs))
        taken.append(rooms[best])
        placed.append(options[best])
    return placed


@dataclass(frozen=True)
class _Axis:
    """From values to SVG units."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float) -> _Axis:
        """An axis within [0, 1] that holds the values and ends on ticks."""
        values = list(values)
        spread = max(max(values) - min(values), 0.08)
        step = next(of for of in (0.02, 0.05, 0.1, 0.2, 0.25) if spread / of <= 5 or of == 0.25)
        whole = round(1 / step)
        low = max(0, min(whole - 1, math.floor(round(min(values) / step, 6))))
        high = min(whole, max(low + 1, math.ceil(round(max(values) / step, 6))))
        ticks = tuple(round(number * step, 4) for number in range(low, high + 1))
        return cls(low * step, high * step, start, end, ticks)

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _box(mark: Mark, cases: Mapping[str, float], axis: _Axis, y: float) -> list[str]:
    low, middle, high = np.percentile(list(cases.values()), [25, 50, 75])
    reach = 1.5 * (high - low)
    inside = [value for value in cases.values() if low - reach <= value <= high + reach]
    ends = [f"{axis(value):.1f}" for value in (min(inside), low, high, max(inside))]
    parts = [
        f'<path d="M{ends[0]} {y:g}H{ends[1]}M{ends[2]} {y:g}H{ends[3]}" {_line(mark)}/>',
        f'<rect x="{ends[1]}" y="{y - 7:g}" width="{max(1.0, axis(high) - axis(low)):.1f}" height="14" '
        f'fill="{mark.colour}" fill-opacity=".18" stroke="{mark.colour}"/>',
        f'<path d="M{axis(middle):.1f} {y - 7:g}v14" stroke="{mark.colour}" stroke-width="3"/>',
    ]
    for number, (name, value) in enumerate(sorted(cases.items(), key=lambda item: item[1])):
        # neighbours in value alternate in height, so that equal cases stay countable
        parts.append(
            f'<circle cx="{axis(value):.1f}" cy="{y + (-4, 0, 4)[number % 3]:g}" r="1.8" fill-opacity=".7">'
            f"<title>{escape(name)}: {value:.3f}</title></circle>"
        )
    return parts


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        f'font-size="{FONT}" fill="var(--ink)">'
    )


def _vertical_grid(axis: _Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in axis.ticks:
        x = f"{axis(tick):.1f}"
        anchor = "end" if axis(tick) > RIGHT - 8 else "middle"
        parts.append(f'<path d="M{x} {top:g}V{bottom:g}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{x}" y="{bottom + 14}" text-anchor="{anchor}" fill="var(--soft)">{tick:g}</text>'
        )
    return parts


def _line(mark: Mark) -> str:
    return f'stroke="{mark.colour}" stroke-width="1.6" fill="none"'


def _decades(low: float, top: float) -> list[float]:
    """Round numbers between two powers of ten, as few as an axis has room for."""
    powers = range(math.floor(low), math.ceil(top) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            step * 10.0**power
            for power in powers
            for step in steps
            if low <= math.log10(step * 10.0**power) <= top
        ]
        if len(ticks) <= 6:
            break
    return ticks


def _shared(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """The area that two boxes have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
