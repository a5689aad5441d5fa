"""The success-rate curve: which share of the landmarks was found within a distance."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from fewshot.evaluation.charts import FONT, RIGHT, WIDEST, WIDTH, Mark

LEFT, TOP, BOTTOM = 40, 22, 208
NAMES, ROW = 264, 18
"""Base line of the first row of names, and from row to row."""
ENDS = tuple(step * 10.0**power for power in range(-1, 4) for step in (1, 2, 5))
"""Where the axis of distances may end."""
SHOWN = 80
"""Percent of the errors that lie within the axis, for the method in the middle."""
TICKS = (0, 0.25, 0.5, 0.75, 1)
POINTS = 120


def success_curves(
    values: Sequence[tuple[Mark, Sequence[float], int]],
    *,
    title: str,
    unit: str,
    limits: Sequence[float] = (),
) -> str:
    """One curve per method, as inline SVG; baselines are dashed.

    Args:
        values: mark, distances of the landmarks that were found, and how many there were to find.
        title: what a screen reader says.
        unit: of the distances.
        limits: distances that are marked by a line.
    """
    needed = [float(np.percentile(errors, SHOWN)) for _, errors, _ in values if len(errors)]
    end = next((of for of in ENDS if of >= (np.median(needed) if needed else 1.0)), ENDS[-1])

    def x(distance: float) -> float:
        return LEFT + (RIGHT - LEFT) * distance / end

    def y(share: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * share

    parts = []
    for tick in TICKS:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{RIGHT}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{LEFT - 4}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="var(--soft)">{tick:.0%}</text>'
        )
    for tick in np.linspace(0, end, 6)[1:]:
        anchor = "end" if tick == end else "middle"
        parts.append(
            f'<text x="{x(tick):.1f}" y="{BOTTOM + 15}" text-anchor="{anchor}" fill="var(--soft)">{tick:.3g}</text>'
        )
    parts += [
        f'<path d="M{x(limit):.1f} {TOP}V{BOTTOM}" stroke="var(--soft)" stroke-dasharray="2 3"/>'
        for limit in limits
        if limit <= end
    ]
    middle = (LEFT + RIGHT) / 2
    below = f'x="{middle}" y="{BOTTOM + 33}" text-anchor="middle" fill="var(--soft)"'
    parts.append(f"<text {below}>{escape(unit)} off at most</text>")
    parts.append('<text x="2" y="12" fill="var(--soft)">landmarks</text>')
    grid = np.linspace(0, end, POINTS)
    for mark, errors, count in values:
        shares = np.searchsorted(np.sort(errors), grid, side="right") / max(count, 1)
        path = "L".join(f"{x(at):.1f} {y(share):.1f}" for at, share in zip(grid, shares, strict=True))
        dashes = ' stroke-dasharray="6 4"' if mark.baseline else ""
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{mark.colour}" stroke-width="2"{dashes}>'
            f"<title>{escape(mark.name)}: {shares[-1]:.0%} within {end:g} {unit}</title></path>"
        )
    legend, bottom = _legend([mark for mark, _, _ in values])
    opened = (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {bottom}" role="img" aria-label="{escape(title)}" '
        f'font-size="{FONT}" fill="var(--ink)">'
    )
    return "\n".join([opened, *parts, *legend, "</svg>"])


def _legend(marks: Sequence[Mark]) -> tuple[list[str], float]:
    """The methods' names below the chart, from left to right as far as there is room; and where they end."""
    parts, at, line = [], float(LEFT), NAMES
    for mark in marks:
        width = 28 + WIDEST * len(mark.label)
        if at + width > RIGHT and at > LEFT:
            at, line = float(LEFT), line + ROW
        parts.append(f'{mark.at(at + 5, line - 4)}<text x="{at + 15:.1f}" y="{line}">{mark.label}</text>')
        at += width
    return parts, line + 6
