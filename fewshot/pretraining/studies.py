"""Which studies a pretraining uses: folders, files, or a list that can be kept with the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fewshot.dataset import study_readers
from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_volume
from fewshot.volumes.raw import case_name

Readers = dict[str, Callable[[], Volume]]


def open_studies(studies: Sequence[Path], *, root: Path | None = None) -> Readers:
    """How to read every study, by ``group/name``; a group is drawn by the root of its number of slices.

    Args:
        studies: folders of volumes (each a group), volumes, or ``.json`` lists
            ``{"pretraining": {group: [path, ...]}}`` with paths relative to ``root``.
        root: for the paths in lists; by default the list's own folder.

    Raises:
        FewshotError: if one of them is missing, empty or not a list.
    """
    readers: Readers = {}
    for place in studies:
        for name, read in _open(place, root).items():
            if name in readers:
                raise FewshotError(f"Two studies are called {name} (the second in {place}); rename one.")
            readers[name] = read
    if not readers:
        raise FewshotError("There is no study to learn from; give folders of volumes.")
    return readers


def _open(place: Path, root: Path | None) -> Readers:
    if place.suffix == ".json":
        return _listed(place, root or place.parent)
    if place.is_file():
        return {f"{place.resolve().parent.name}/{case_name(place)}": partial(read_volume, place)}
    return {f"{place.resolve().name}/{name}": read for name, read in study_readers(place).items()}


def _listed(file: Path, root: Path) -> Readers:
    try:
        groups = json.loads(file.read_text())["pretraining"]
        paths = [(str(group), str(path)) for group, listed in groups.items() for path in listed]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FewshotError(
            f"{file} is no list of studies ({type(error).__name__}: {error}); write "
            '{"pretraining": {"group": ["path"]}}.'
        ) from error
    if missing := [path for _, path in paths if not (root / path).exists()]:
        raise FewshotError(
            f"{len(missing)} of the {len(paths)} studies of {file} are not in {root}, the first is {missing[0]}; "
            "say where they are with --root."
        )
    return {f"{group}/{case_name(root / path)}": partial(read_volume, root / path) for group, path in paths}
