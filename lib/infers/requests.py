"""What viewers say with a click: Slicer's *SmartEdit* and OHIF's *Point Prompts* send the same keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.errors import FewshotError
from lib.labels import clean_name

Voxel = tuple[int, int, int]

UNNAMED = "foreground"
"""What a structure is called that the request does not name (OHIF)."""


@dataclass(frozen=True)
class ClickRequest:
    """Clicks of one structure.

    Attributes:
        foreground: voxels (i, j, k) inside of it.
        background: voxels outside.
        label: the structure's name.
        notes: what was sent and is not used.
    """

    foreground: list[Voxel]
    background: list[Voxel]
    label: str
    notes: list[str]


def read_clicks(request: Mapping[str, Any], shape: tuple[int, int, int], *, one_slice: bool) -> ClickRequest:
    """The clicks of a request.

    Slicer sends `label`, `foreground`, `background`, and `slice` to a model of dimension 2 (on slice 0 together
    with the points of all slices); OHIF sends `foreground` and `background`. Points are voxel indices.

    Args:
        request: what the viewer sent.
        shape: voxels along the image's axes.
        one_slice: leave out points on other slices than the one asked for.

    Raises:
        FewshotError: no point inside the structure, or something that is no point of this image.
    """
    label = request.get("label")
    name = UNNAMED if label is None else clean_name(label)
    foreground = _points(request.get("foreground"), "foreground", shape)
    background = _points(request.get("background"), "background", shape)
    notes = []
    if request.get("roi"):
        notes.append("The box (ROI) was not used: points alone say where the structure is.")
    where = ""
    if one_slice and (index := _slice(request.get("slice"), shape)) is not None:
        where = f" on slice {index}"
        foreground = [point for point in foreground if point[2] == index]
        background = [point for point in background if point[2] == index]
    if not foreground:
        raise FewshotError(f"There is no foreground point{where}: click inside the structure first.")
    if both := sorted(set(foreground) & set(background)):
        raise FewshotError(
            f"The point {list(both[0])} is foreground and background at once: choose a structure, remove one of them."
        )
    return ClickRequest(foreground, background, name, notes)


def _points(sent: Any, what: str, shape: tuple[int, int, int]) -> list[Voxel]:
    if sent is None:
        return []
    if not isinstance(sent, list):
        raise FewshotError(f"{what} is {sent!r:.60}: send a list of points [i, j, k] in voxels of the image.")
    points: list[Voxel] = []
    for point in sent:
        if not (isinstance(point, list) and len(point) == 3 and all(map(_is_number, point))):
            raise FewshotError(f"The {what} point {point!r:.60} is no voxel: send three numbers [i, j, k].")
        i, j, k = (round(number) for number in point)
        if not all(0 <= index < side for index, side in zip((i, j, k), shape, strict=True)):
            raise FewshotError(
                f"The {what} point {[i, j, k]} lies outside of the image, which has {' x '.join(map(str, shape))} "
                "voxels: click inside of it."
            )
        points.append((i, j, k))
    return list(dict.fromkeys(points))


def _slice(sent: Any, shape: tuple[int, int, int]) -> int | None:
    if sent is None or (_is_number(sent) and sent < 0):
        return None
    if not _is_number(sent) or not round(sent) < shape[2]:
        raise FewshotError(
            f"slice is {sent!r:.60}: send the index of one of the image's {shape[2]} slices, or leave it out."
        )
    return round(sent)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
