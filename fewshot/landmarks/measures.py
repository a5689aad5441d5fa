"""Sizes and angles between landmarks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.errors import FewshotError
from fewshot.landmarks.template import Point

DISTANCE, ANGLE = "distance", "angle"
COUNTS = {DISTANCE: 2, ANGLE: 3}
"""How many landmarks each measure has."""


@dataclass(frozen=True)
class Measure:
    """A size that somebody asked for.

    Attributes:
        kind: ``distance`` or ``angle``.
        names: its landmarks; an angle is at the second of three.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it was asked for, such as ``distance a,b``."""
        return f"{self.kind} {','.join(self.names)}"

    def of(self, points: Mapping[str, Point]) -> float | None:
        """Its value, mm or degrees; None where a landmark is missing, or an angle has no legs."""
        try:
            return (distance if self.kind == DISTANCE else angle)(points, *self.names)
        except FewshotError:
            return None  # of one image of many; the others have a value


def parse_measure(kind: str, text: str, known: Collection[str]) -> Measure:
    """Read a request such as ``nasion,inion``.

    Args:
        kind: ``distance`` or ``angle``.
        text: names separated by commas.
        known: the landmarks that there are.

    Raises:
        FewshotError: not as many names as the measure has, a name twice, or an unknown one.
    """
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != COUNTS[kind] or len(set(names)) < len(names):
        raise FewshotError(
            f"--{kind} {text} does not name {COUNTS[kind]} different landmarks; separate them by commas."
        )
    if unknown := [name for name in names if name not in known]:
        raise FewshotError(
            f"--{kind} {text}: there is no landmark {unknown[0]}; known are {', '.join(known)}."
        )
    return Measure(kind, names)


def distance(points: Mapping[str, Point], a: str, b: str) -> float:
    """Distance of two landmarks, mm.

    Raises:
        FewshotError: if one of them is not among the points.
    """
    first, second = _places(points, (a, b))
    return float(np.linalg.norm(second - first))


def angle(points: Mapping[str, Point], a: str, b: str, c: str) -> float:
    """Angle at landmark b between those to a and c, degrees from 0 to 180.

    Raises:
        FewshotError: if one of them is not among the points, or a or c lies where b does.
    """
    first, vertex, second = _places(points, (a, b, c))
    one, other = first - vertex, second - vertex
    if not (np.any(one) and np.any(other)):
        raise FewshotError(f"There is no angle at {b}: {a} or {c} lies at the same place.")
    # well-conditioned for all angles, unlike the arc cosine
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other)), one @ other)))


def _places(points: Mapping[str, Point], names: Sequence[str]) -> list[np.ndarray]:
    if missing := [name for name in names if name not in points]:
        raise FewshotError(f"Landmark {missing[0]} was not found, so nothing can be measured from it.")
    return [np.array(points[name]) for name in names]
