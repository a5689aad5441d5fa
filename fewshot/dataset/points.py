"""The landmarks of a dataset: files of points beside the images, or the centres of its labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import find_objects

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate, Mark
from fewshot.landmarks.files import names_in, read_points
from fewshot.landmarks.reading import Marks
from fewshot.volumes import Volume

FOLDER = "landmarks"
ENDINGS = (".mrk.json", ".json")


def list_point_files(folder: Path) -> dict[str, Path]:
    """Files of points by case name; names that begin with a dot are left out.

    Raises:
        FewshotError: if two of them have one case name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        ending = next((of for of in ENDINGS if path.name.lower().endswith(of)), "")
        if path.name.startswith(".") or not ending or path.is_dir():
            continue
        name = path.name[: -len(ending)]
        if name in found:
            raise FewshotError(f"{found[name]} and {path} are both called {name}: rename or remove one.")
        found[name] = path
    return found


def declared_names(fields: Mapping[str, Any], description: Path) -> tuple[str, ...]:
    """The landmarks that a dataset.json lists, in its order; none where it lists none.

    Raises:
        FewshotError: an entry is no name, or is there twice.
    """
    names = fields.get("landmarks", [])
    for name in names:
        if not isinstance(name, str) or name != name.strip() or not name:
            raise FewshotError(
                f'"landmarks" in {description} has the entry {name!r}: write names such as ["nasion"].'
            )
    if twice := [name for name in names if names.count(name) > 1]:
        raise FewshotError(f'"landmarks" in {description} has {twice[0]} twice: remove one.')
    return tuple(names)


def names_in_files(files: Mapping[str, Path]) -> tuple[tuple[str, ...], dict[str, str]]:
    """All landmarks that some file names, in order of first appearance, and case -> why its file cannot be read."""
    names: dict[str, None] = {}
    failed: dict[str, str] = {}
    for case, path in files.items():
        try:
            names.update(dict.fromkeys(names_in(path)))
        except FewshotError as error:
            failed[case] = str(error)
    return tuple(names), failed


def read_case(path: Path, volume: Volume, known: Collection[str], chosen: Collection[str]) -> Marks:
    """Read a file of points, and of them the chosen ones.

    Raises:
        FewshotError: as `read_points`, or a landmark that the dataset does not know.
    """
    marks, absent = read_points(path, volume)
    if unknown := [name for name in (*marks, *sorted(absent)) if name not in known]:
        raise FewshotError(
            f'{path} has the landmark {unknown[0]}, unknown to the dataset: add it to "landmarks" in dataset.json, or '
            "rename it."
        )
    return {name: mark for name, mark in marks.items() if name in chosen}, absent & {*chosen}


def centres_of(labels: np.ndarray, names: Mapping[str, int], volume: Volume, *, complete: bool) -> Marks:
    """The centres of labels as landmarks: coordinates, without the spread of what was drawn to mark a place.

    Args:
        labels: integer ``[X, Y, Z]`` on the volume's grid.
        names: label name -> value.
        volume: the image.
        complete: whether a label that does not occur is absent; else it is unknown, as is one that touches the
            border of the image: nobody knows where the centre of the whole of it lies.
    """
    boxes = find_objects(labels.astype(np.int32, copy=False))
    found = {name: boxes[value - 1] for name, value in names.items() if value <= len(boxes)}
    whole = {name: names[name] for name, box in found.items() if box is not None and _ends(box, labels.shape)}
    absent = frozenset(name for name in names if found.get(name) is None) if complete else frozenset()
    marks = LandmarkTemplate.of_labels(volume, labels, whole).marks if whole else {}
    return {name: Mark(mark.point) for name, mark in marks.items()}, absent


def _ends(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether a box ends before the border does; one slice has no border across it."""
    return all(side == 1 or (of.start > 0 and of.stop < side) for of, side in zip(box, shape, strict=True))
