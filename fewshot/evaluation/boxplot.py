"""A box plot as inline SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

WIDTH, LEFT, RIGHT, ROW, TOP = 340, 6, 334, 40, 4
"""Layout in SVG units: about one pixel each on a phone."""


def box_plot(values: Mapping[str, Mapping[str, float]], *, title: str) -> str:
    """Draw one box per group on a scale from 0 to 1, with every value as a point.

    Args:
        values: group -> name of the point -> value in [0, 1].
        title: what a screen reader says.
    """
    groups = {group: of for group, of in values.items() if of}
    bottom = TOP + ROW * len(groups)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + 16}" role="img" aria-label="{escape(title)}" font-size="11" '
        'fill="var(--ink)" stroke="none">'
    ]
    for tick, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end")):
        parts.append(f'<line x1="{_x(tick)}" x2="{_x(tick)}" y1="{TOP}" y2="{bottom}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{_x(tick)}" y="{bottom + 13}" text-anchor="{anchor}" fill="var(--soft)">{tick}</text>'
        )
    for i, (group, points) in enumerate(groups.items()):
        parts += _row(group, points, TOP + ROW * i)
    return "\n".join([*parts, "</svg>"])


def _row(group: str, points: Mapping[str, float], top: float) -> list[str]:
    low, middle, high = np.percentile(list(points.values()), [25, 50, 75])
    reach = 1.5 * (high - low)
    inside = [value for value in points.values() if low - reach <= value <= high + reach]
    y = top + 26
    blue = 'stroke="var(--mark)" fill="none"'
    parts = [
        f'<text x="{LEFT}" y="{top + 12}">{escape(group)}</text>',
        f'<line x1="{_x(min(inside))}" x2="{_x(low)}" y1="{y}" y2="{y}" {blue}/>',
        f'<line x1="{_x(high)}" x2="{_x(max(inside))}" y1="{y}" y2="{y}" {blue}/>',
        f'<rect x="{_x(low)}" y="{y - 8}" width="{max(0.5, _x(high) - _x(low)):.1f}" height="16" {blue}/>',
        f'<line x1="{_x(middle)}" x2="{_x(middle)}" y1="{y - 8}" y2="{y + 8}" {blue} stroke-width="2"/>',
    ]
    for i, (name, value) in enumerate(sorted(points.items(), key=lambda item: item[1])):
        # neighbours in value alternate in height, so that equal cases stay countable
        parts.append(
            f'<circle cx="{_x(value)}" cy="{y + (-4, 0, 4)[i % 3]}" r="2" fill-opacity=".65">'
            f"<title>{escape(name)}: {value:.3f}</title></circle>"
        )
    return parts


def _x(value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * float(value), 1)
