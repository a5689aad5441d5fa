"""The label dictionary: which name has which value in every result of this workspace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from fewshot.errors import FewshotError
from lib.files import read_json, stamp, write_json

logger = logging.getLogger(__name__)

LARGEST = 255
"""Results are 8-bit label maps: viewers ask for uint8."""

NOT_LABELS = frozenset({"background", "foreground_scribbles", "background_scribbles"})
"""Segments that Slicer's plugin keeps for itself and that never name a structure."""


UNREAD = (-1, -1, -1)
"""The stamp of a file that has to be read again."""


class LabelDictionary:
    """Label names and values 1..N, stable for the life of the workspace.

    The file `labels.json` holds three things: `labels` {name: value}, which people may edit to rename a
    label; `history` {value: names}, every name that a value has had, so that templates submitted under an
    old name still count; and `given`, the names of the last `--conf labels`. Values are never taken away:
    viewers paint results by value, and a value that changed its meaning would swap organs silently.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._seen = UNREAD
        self._content: dict[str, Any] = {}
        self._labels: dict[str, int] = {}
        self._history: dict[int, list[str]] = {}

    def read(self) -> dict[str, int]:
        """The names in the order of their values 1..N.

        Raises:
            FewshotError: if the file was edited into something that is not a label dictionary.
        """
        with self._mutex:
            self._refresh()
            return dict(self._labels)

    def current(self, name: str) -> tuple[str, int] | None:
        """The name and value that a label has today, found under its present or a former name."""
        with self._mutex:
            self._refresh()
            return self._find(name)

    def add(self, names: Iterable[str]) -> dict[str, int]:
        """Give every name that is not known yet the next free value.

        Returns:
            The whole dictionary.

        Raises:
            FewshotError: for a name that cannot be one, or more labels than 8 bits can hold.
        """
        return self._extend(list(names), given=None)

    def add_what_fits(self, names: Iterable[str]) -> list[str]:
        """As `add`, for names that need not have a value.

        Returns:
            Those for which there is none left.
        """
        new = [name for name in dict.fromkeys(map(clean_name, names)) if self.current(name) is None]
        room = LARGEST - len(self.read())
        if new[:room]:
            self.add(new[:room])
        return new[room:]

    def fix(self, names: Sequence[str]) -> dict[str, int]:
        """Take over the names of `--conf labels`; those no longer given keep their values.

        Returns:
            The whole dictionary.

        Raises:
            FewshotError: as for `add`.
        """
        return self._extend(list(names), given=list(names))

    def _extend(self, names: list[str], *, given: list[str] | None) -> dict[str, int]:
        names = [clean_name(name) for name in names]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._mutex, FileLock(f"{self.path}.lock"):
            before = self._refresh()
            for name in dict.fromkeys(names):
                if self._find(name) is None:
                    self._labels[name] = len(self._labels) + 1
            if len(self._labels) > LARGEST:
                self._seen = UNREAD
                raise FewshotError(
                    f"There would be {len(self._labels)} labels: one workspace holds {LARGEST}, because viewers "
                    "ask for 8-bit results."
                )
            for name, value in self._labels.items():
                if name not in self._history.setdefault(value, []):
                    self._history[value].append(name)
            if given is not None:
                self._warn_dropped(before.get("given", []), given)
            after = {
                "labels": self._labels,
                "history": {str(value): names for value, names in sorted(self._history.items())},
                "given": before.get("given", []) if given is None else given,
            }
            if after != before:
                self._seen = UNREAD  # should writing fail, the file is read again
                write_json(self.path, after)
            return dict(self._labels)

    def _find(self, name: str) -> tuple[str, int] | None:
        if name in self._labels:
            return name, self._labels[name]
        for value, names in self._history.items():
            if name in names:
                return next(now for now, owner in self._labels.items() if owner == value), value
        return None

    def _refresh(self) -> dict[str, Any]:
        """Read the file where it changed; returns its content, empty where there is none."""
        seen = stamp(self.path)
        if seen != self._seen:
            try:
                content = read_json(self.path)
                self._labels, self._history = parse(content, self.path)
            except FileNotFoundError:
                content, self._labels, self._history = {}, {}, {}
            self._content, self._seen = content, seen
        return self._content

    def _warn_dropped(self, before: Sequence[str], now: Sequence[str]) -> None:
        for name in before:
            known = self._find(name)
            if known and name not in now and known[0] not in now:
                logger.warning(
                    "Label %s is not in --conf labels any more: its value %d stays reserved.", name, known[1]
                )


def clean_name(name: Any) -> str:
    """A label name without surrounding blanks.

    Raises:
        FewshotError: if it is no text, empty, or one that viewers use for something else.
    """
    if not isinstance(name, str) or not name.strip():
        raise FewshotError(f"A label has the name {name!r}: give it a readable one.")
    name = name.strip()
    if name in NOT_LABELS:
        raise FewshotError(f"A label cannot be called {name}: viewers use that name for something else.")
    return name


def parse(content: Any, path: Path) -> tuple[dict[str, int], dict[int, list[str]]]:
    """Labels by value and the history of names, from what is in the file.

    A name that was taken out of the file comes back under the last name that its value had.

    Raises:
        FewshotError: if values are not 1..N, or two names share one.
    """
    form = f'{path} must hold {{"labels": {{"name": 1, ...}}}} with the values 1 to N'
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not all(type(value) is int for value in labels.values()):
        raise FewshotError(f"{form}: repair it, or move it away and start again.")
    history = _parse_history(content.get("history", {}), path)
    owners: dict[int, str] = {}
    for name, value in labels.items():
        if value in owners:
            raise FewshotError(f'{form}: "{owners[value]}" and "{name}" share the value {value}.')
        owners[value] = clean_name(name)
    for value, names in history.items():
        if value not in owners and names:
            logger.warning("%s: value %d has no name any more; it is %s again.", path, value, names[-1])
            owners[value] = names[-1]
    if sorted(owners) != list(range(1, len(owners) + 1)):
        raise FewshotError(f"{form} without gaps; it has {', '.join(map(str, sorted(owners)))}.")
    if len({*owners.values()}) < len(owners):
        raise FewshotError(
            f"{form}: a name that was removed is in use for another value; rename one of them."
        )
    return {owners[value]: value for value in sorted(owners)}, history


def _parse_history(history: Any, path: Path) -> dict[int, list[str]]:
    try:
        return {int(value): [str(name) for name in names] for value, names in history.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FewshotError(
            f'"history" in {path} is written by the server and was changed: remove it from the file.'
        ) from error
