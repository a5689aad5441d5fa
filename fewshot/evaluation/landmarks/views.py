"""What is predicted of a case: the whole volume, and halves of it in which some landmarks are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fewshot.landmarks import Mark
from fewshot.landmarks.template import Point, to_voxels
from fewshot.volumes import Volume

WHOLE = "whole"
HALVES = ("first-half", "second-half")
"""Along the longest axis, from left, posterior or inferior on."""
SHARE = 0.5
"""Of the longest axis that a half keeps."""
MARGIN = 0.05
"""Of the longest side: landmarks this near to the cut count neither as there nor as absent."""
DRAWN = 1.5
"""Times the spread of what was drawn: a region's centre is absent only once most of the region is."""
LEAST = 8
"""Voxels along the axis that is cut."""


@dataclass(frozen=True, eq=False)
class View:
    """A volume, and what is known of the landmarks in it.

    Attributes:
        name: `WHOLE` or one of `HALVES`.
        volume: the image.
        present: landmark -> its place, RAS+ mm.
        absent: landmarks that are not in this image. Others are not judged.
    """

    name: str
    volume: Volume
    present: dict[str, Point]
    absent: frozenset[str]


def identity(view: str) -> dict[str, float]:
    """What the rows of a view depend on besides the case."""
    return {} if view == WHOLE else {"share": SHARE, "margin": MARGIN, "drawn": DRAWN}


def views_of(volume: Volume, marks: Mapping[str, Mark], absent: frozenset[str]) -> dict[str, View]:
    """All views of a case in which a landmark can be judged, by name; a small volume has no halves."""
    points = {name: mark.point for name, mark in marks.items()}
    views = [View(WHOLE, volume, points, absent), *_halves(volume, marks)]
    return {view.name: view for view in views if view.present or view.absent}


def _halves(volume: Volume, marks: Mapping[str, Mark]) -> list[View]:
    sides = np.array(volume.shape) * np.array(volume.spacing)
    axis = int(np.argmax(sides))
    count = volume.shape[axis]
    if count < LEAST or not marks:
        return []
    step = volume.affine[:3, axis]
    ranges = [(0, round(SHARE * count)), (count - round(SHARE * count), count)]
    if step[np.argmax(np.abs(step))] < 0:  # stored from right, anterior or superior on
        ranges.reverse()
    places = dict(
        zip(marks, to_voxels(volume, [mark.point for mark in marks.values()])[:, axis], strict=True)
    )
    spacing = volume.spacing[axis]
    margins = {
        name: MARGIN * count + DRAWN * mark.spread / spacing for name, mark in marks.items()
    }  # in voxels
    views = []
    for name, (low, high) in zip(HALVES, ranges, strict=True):
        cut = high - 0.5 if low == 0 else low - 0.5
        inwards = {of: (cut - at) * (1 if low == 0 else -1) for of, at in places.items()}
        views.append(
            View(
                name,
                _part(volume, axis, low, high, name),
                {of: marks[of].point for of, deep in inwards.items() if deep >= margins[of]},
                frozenset(of for of, deep in inwards.items() if -deep >= margins[of]),
            )
        )
    return views


def _part(volume: Volume, axis: int, low: int, high: int, name: str) -> Volume:
    """Some voxels along an axis; they stay where they are."""
    affine = volume.affine.copy()
    affine[:3, 3] += low * affine[:3, axis]
    box = tuple(slice(low, high) if of == axis else slice(None) for of in range(3))
    return replace(
        volume,
        array=np.ascontiguousarray(volume.array[box]),
        affine=affine,
        name=f"{volume.name} {name}",
        path=None,
    )
