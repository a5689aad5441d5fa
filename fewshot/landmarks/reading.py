"""What all files of points have in common: JSON, finite coordinates, one place per name and one name per place."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.errors import FewshotError
from fewshot.landmarks.template import Mark, Point, at_one_place

Marks = tuple[dict[str, Mark], frozenset[str]]
"""Landmark name -> where it is, and the names of those that somebody looked for and did not find."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        FewshotError: it is missing, is no JSON object, or gives one key twice.
    """
    try:
        content = json.loads(
            path.read_text(encoding="utf-8-sig"),  # editors on Windows add a mark
            object_pairs_hook=lambda pairs: _once(pairs, path),
        )
    except FileNotFoundError:
        raise FewshotError(f"There is no file {path}; check the name.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FewshotError(
            f"{path} cannot be read as JSON ({error or type(error).__name__}); write it again."
        ) from error
    if not isinstance(content, dict):
        raise FewshotError(f'{path} must hold an object such as {{"nasion": [1.5, -20.0, 31.2]}}.')
    return content


def checked_name(name: object, path: Path) -> str:
    """A landmark's name without space around it.

    Raises:
        FewshotError: it is no text, or nothing is left of it.
    """
    if not isinstance(name, str) or not name.strip():
        raise FewshotError(f"{path} has a landmark without a name; name it.")
    return name.strip()


def checked_numbers(said: object, lengths: Collection[int], what: str) -> list[float]:
    """Coordinates as finite numbers.

    Args:
        said: what a file has in their place.
        lengths: how many there may be.
        what: of which landmark in which file, for the message.

    Raises:
        FewshotError: they are something else.
    """
    numbers = said if isinstance(said, list) else []
    if len(numbers) not in lengths or not all(_is_finite(number) for number in numbers):
        form = " or ".join(
            "[x, y, z]" if length == 3 else "[column, row]" for length in sorted(lengths)[::-1]
        )
        raise FewshotError(f"{what} has the position {json.dumps(said)}; write {form}, finite numbers.")
    return [float(number) for number in numbers]


def as_marks(points: Mapping[str, Sequence[Point]], absent: Collection[str], path: Path) -> Marks:
    """One mark per name: the mean of its points, with their spread.

    Args:
        points: landmark name -> RAS+ mm, one or several.
        absent: names without a place.
        path: the file, for messages.

    Raises:
        FewshotError: a name that has a place and is absent, or two names at one place.
    """
    if both := sorted(set(absent) & points.keys()):
        raise FewshotError(f"{path} gives landmark {both[0]} a place and says that it is absent; remove one.")
    marks = {}
    for name, dots in points.items():
        x, y, z = (float(value) for value in np.mean(dots, axis=0))
        spread = float(np.sqrt(((np.array(dots) - (x, y, z)) ** 2).sum(1).mean()))
        marks[name] = Mark((x, y, z), spread)
    if alike := at_one_place(marks):
        raise FewshotError(
            f"{path} has two landmarks at one place, {alike[0]} and {alike[1]}; move or remove one of them."
        )
    return marks, frozenset(absent)


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise FewshotError(f"{path} has {key} twice; remove one of them.")
        found[key] = value
    return found


def _is_finite(number: object) -> bool:
    # a whole number of thousands of digits is too large for a float
    try:
        return type(number) in (int, float) and math.isfinite(float(number))  # type: ignore[arg-type]
    except OverflowError:
        return False
