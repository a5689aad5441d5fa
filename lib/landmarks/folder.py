"""Files with points beside the studies: `landmarks/NAME.json` and Slicer's `landmarks/NAME.mrk.json`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError
from lib.files import read_json, stamp

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkTemplate
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)

FOLDER = "landmarks"
MARKUPS = ".mrk.json"
JSON = ".json"
FIDUCIAL = "Fiducial"
"""The type of a list of points; others are lines, curves and planes."""


class LandmarkFolder:
    """The folder `landmarks` in the studies folder; it need not exist, and files may come and go.

    Args:
        studies: the studies folder; the address of a PACS has no such files.
    """

    def __init__(self, studies: str) -> None:
        remote = studies.startswith(("http://", "https://"))
        self._folder = None if remote else Path(studies).resolve() / FOLDER
        self._read: dict[Path, tuple[tuple[int, int, int], frozenset[str]]] = {}

    def files(self) -> dict[str, list[Path]]:
        """The files of every image, its `NAME.json` before its markups."""
        found: dict[str, list[Path]] = {}
        if self._folder is not None and self._folder.is_dir():
            for path in sorted(self._folder.glob(f"*{JSON}"), key=lambda path: (_is_markups(path), path)):
                if not path.name.startswith("."):
                    found.setdefault(_image_of(path), []).append(path)
        return found

    def stamps(self) -> list[tuple[object, ...]]:
        """What changes whenever a file does."""
        return [(path, *stamp(path)) for paths in self.files().values() for path in paths]

    def names(self) -> dict[str, frozenset[str]]:
        """The landmarks that each image's files name, for images with such files, which need not be there."""
        named = {
            image: frozenset[str]().union(*map(self._names, paths)) for image, paths in self.files().items()
        }
        return {image: names for image, names in named.items() if names}

    def _names(self, path: Path) -> frozenset[str]:
        seen = stamp(path)
        known = self._read.get(path)
        if known is None or known[0] != seen:
            try:
                names = frozenset(name.strip() for name in _named(read_json(path)) if name.strip())
            except (FewshotError, FileNotFoundError):  # told when it is to be a template
                names = frozenset()
            known = self._read[path] = seen, names
        return known[1]


def read_file(path: Path, volume: Volume) -> LandmarkTemplate:
    """The landmarks of a file.

    Raises:
        FewshotError: if it is damaged, of another kind, or has a landmark that is not in the image.
    """
    from fewshot.landmarks.files import read_landmarks

    return read_landmarks(path, volume)


def _is_markups(path: Path) -> bool:
    return path.name.endswith(MARKUPS)


def _image_of(path: Path) -> str:
    return path.name.removesuffix(MARKUPS if _is_markups(path) else JSON)


def _named(content: Any) -> Iterator[str]:
    """Names as `fewshot.landmarks.files` finds them; it is not asked, because it loads the whole engine.

    Any program may have written JSON here, and a name makes a landmark of an organ: one counts only beside a place, or
    where it is said to have none.
    """
    if not isinstance(content, Mapping):
        return
    markups, predicted = content.get("markups"), content.get("landmarks")
    if isinstance(markups, list):
        for points in (of.get("controlPoints") for of in _objects(markups) if of.get("type") == FIDUCIAL):
            labels = [point.get("label") for point in _objects(points)]
            yield from (label for label in labels if isinstance(label, str))
    elif isinstance(predicted, Mapping):
        yield from (name for name, of in predicted.items() if isinstance(of, Mapping) and "found" in of)
    else:
        yield from (name for name, place in content.items() if place is None or _is_position(place))


def _objects(listed: Any) -> list[Mapping[str, Any]]:
    return [of for of in listed if isinstance(of, Mapping)] if isinstance(listed, list) else []


def _is_position(place: Any) -> bool:
    return isinstance(place, list) and len(place) in (2, 3) and all(type(of) in (int, float) for of in place)
