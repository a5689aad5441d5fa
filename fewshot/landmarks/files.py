"""Landmarks in files: our own ``NAME.json``, what ``fewshot predict`` wrote, and Slicer's markups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nibabel.affines import apply_affine

from fewshot.errors import FewshotError
from fewshot.landmarks.markups import is_markups, markups_points
from fewshot.landmarks.reading import Marks, as_marks, checked_name, checked_numbers, read_object
from fewshot.landmarks.template import LandmarkTemplate, Point, inside, to_voxels
from fewshot.model import write_file
from fewshot.volumes import Volume

DIGITS = 6
"""Of coordinates in files: a nanometre."""


def read_points(path: Path | str, volume: Volume | None = None) -> Marks:
    """Read landmarks from a file; which kind it is, is told by its content.

    - ``{"nasion": [x, y, z], "inion": null}``: RAS+ mm; null is looked for and absent. Of an image of one slice also
      ``[column, row]``, pixels from 0 at the centre of the first.
    - what ``fewshot predict --out x.json`` writes, with ``ras`` of each landmark.
    - Slicer's markups of type Fiducial (``.mrk.json``).

    Args:
        path: the file.
        volume: its image, which all points must lie in; without it, that is not checked and pixels are refused.

    Raises:
        FewshotError: the file is damaged, a position is none, lies outside, or is given to two names.
    """
    path = Path(path)
    content = read_object(path)
    points, absent = _points(content, path, volume)
    if volume is not None:
        for name, dots in points.items():
            for dot in dots:
                _require_inside(name, dot, path, volume)
    return as_marks(points, absent, path)


def names_in(path: Path | str) -> list[str]:
    """The landmarks that a file names, whether they are there or absent.

    Raises:
        FewshotError: the file is damaged.
    """
    path = Path(path)
    content = read_object(path)
    if is_markups(content):
        points, absent = markups_points(content, path)
        return [*points, *sorted(absent)]
    said = content.get("landmarks")
    return [checked_name(name, path) for name in (said if isinstance(said, dict) else content)]


def read_landmarks(path: Path | str, volume: Volume) -> LandmarkTemplate:
    """Read a file's landmarks as a template.

    Raises:
        FewshotError: as `read_points`, or there is none.
    """
    marks, absent = read_points(path, volume)
    if not marks:
        raise FewshotError(f"{path} has no landmark; mark at least one.")
    return LandmarkTemplate(volume, marks, absent)


def write_points(path: Path | str, points: Mapping[str, Sequence[float] | None]) -> None:
    """Write our own form of a file; it appears complete or not at all.

    Args:
        path: the file.
        points: landmark name -> RAS+ mm, None for one that is absent.
    """
    content = {
        name: None if point is None else [round(float(value), DIGITS) for value in point]
        for name, point in points.items()
    }
    write_json_file(path, content)


def write_json_file(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write plain JSON beside and rename it into place."""
    write_file(Path(path), json.dumps(content, indent=1, allow_nan=False).encode())


def _points(
    content: dict[str, Any], path: Path, volume: Volume | None
) -> tuple[dict[str, list[Point]], set[str]]:
    if is_markups(content):
        return markups_points(content, path)
    said = content
    if isinstance(content.get("landmarks"), dict):
        said = {name: _predicted(of, name, path) for name, of in content["landmarks"].items()}
    points: dict[str, list[Point]] = {}
    absent = set()
    for key, value in said.items():
        name = checked_name(key, path)
        if name in points or name in absent:
            raise FewshotError(f"{path} has {name} twice; remove one of them.")
        if value is None:
            absent.add(name)
        else:
            points[name] = [_point(value, name, path, volume)]
    return points, absent


def _predicted(of: object, name: str, path: Path) -> object:
    """The position in RAS that a prediction tells, None where it found nothing."""
    if not isinstance(of, dict) or not isinstance(of.get("found"), bool):
        raise FewshotError(f"{path} does not say of landmark {name} whether it was found; predict it again.")
    return of.get("ras", "") if of["found"] else None


def _point(value: object, name: str, path: Path, volume: Volume | None) -> Point:
    flat = volume is not None and volume.shape[2] == 1
    numbers = checked_numbers(value, (2, 3) if flat else (3,), f"{path}: landmark {name}")
    if volume is not None and len(numbers) == 2:
        numbers = [float(number) for number in apply_affine(volume.affine, [*numbers, 0.0])]
    x, y, z = numbers
    return x, y, z


def _require_inside(name: str, point: Point, path: Path, volume: Volume) -> None:
    if inside(volume, point):
        return
    at = ", ".join(f"{value:.1f}" for value in to_voxels(volume, [point])[0])
    grid = " x ".join(map(str, volume.shape))
    hint = (
        "check whether the file gives RAS or LPS coordinates, and of which image"
        if volume.calibrated
        else "give [column, row] in pixels from 0, and check of which image"
    )
    raise FewshotError(
        f"{path}: landmark {name} lies outside the image {volume.name}, at voxel {at} of {grid}; {hint}."
    )
