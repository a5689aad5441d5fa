"""Which labels are landmarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fewshot.errors import FewshotError
from lib.labels import LabelDictionary

if TYPE_CHECKING:
    from fewshot.landmarks import FoundLandmark

SUFFIX = re.compile(r"(^|[\s_.(-])landmark\)?$", re.IGNORECASE)
"""`nasion landmark`, `nasion_landmark`, `nasion (landmark)`: names that say so themselves."""

Rule = Callable[[str], bool]
"""Whether a label of this name is a landmark."""


class LandmarkNames:
    """Landmarks are labels that `--conf landmarks` lists, whose name ends in *landmark*, or that a file has points of.

    The name that a label has today decides; `--conf landmarks` may also list one that it had before.

    Args:
        told: names from `--conf landmarks`; None for all labels.
        labels: the app's dictionary.
        in_files: tells the names in files with points.
    """

    def __init__(
        self, told: tuple[str, ...] | None, labels: LabelDictionary, in_files: Callable[[], Collection[str]]
    ) -> None:
        self._told = told
        self._labels = labels
        self._in_files = in_files

    def rule(self) -> Rule:
        """What counts now."""
        if self._told is None:
            return lambda _name: True
        names: set[str] = set()
        for name in (*self._told, *self._in_files()):
            known = self._labels.current(name)
            names |= {name, known[0]} if known else {name}
        return lambda name: name in names or SUFFIX.search(name) is not None


def in_todays_names(
    landmarks: Mapping[str, FoundLandmark], labels: LabelDictionary
) -> dict[str, FoundLandmark]:
    """What was found, under the names that the landmarks have today.

    Raises:
        FewshotError: if two of them have one name today.
    """
    now: dict[str, FoundLandmark] = {}
    for name, found in landmarks.items():
        today, _ = labels.current(name) or (name, 0)
        if today in now:
            raise FewshotError(
                f"Two landmarks of the model are called {today} today: rename one in {labels.path}."
            )
        now[today] = replace(found, name=today)
    return now
