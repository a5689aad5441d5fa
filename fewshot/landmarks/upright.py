"""Images of one slice on one footing: the same way round however they are stored, of one size if theirs is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from fewshot.landmarks.template import LandmarkTemplate, Mark
from fewshot.volumes import Volume

CODES = {"x": "PIR", "y": "LIA", "z": "LPS"}
"""By the axis that a slice lies across: columns and rows run down the world's axes, as those of PNG files do."""


def upright(volume: Volume) -> Volume:
    """A slice's columns, rows and then its depth, each in one direction; its points stay where they are.

    Registration and textures see voxels, features see the world: all of them have to see a slice the same way round. A
    volume, whose axes they turn themselves, stays as it is.
    """
    if volume.shape.count(1) != 1:
        return volume
    orientation = io_orientation(volume.affine)
    across = "xyz"[int(orientation[volume.shape.index(1), 0])]
    turn = ornt_transform(orientation, axcodes2ornt(CODES[across]))
    return replace(
        volume,
        array=np.ascontiguousarray(apply_orientation(volume.array, turn)),
        affine=volume.affine @ inv_ornt_aff(turn, volume.shape),
    )


def longest_side(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Of a slice's two sides, mm."""
    return float(max(np.multiply(shape, spacing)[:2]))


def as_large(volume: Volume, side: float) -> tuple[Volume, float]:
    """A slice whose size is not known as large as others are; what has a size, or a depth, stays as it is.

    Args:
        volume: upright.
        side: mm, of the others' longest sides.

    Returns:
        The slice, and the factor from its former coordinates to those that it has now.
    """
    if volume.calibrated or volume.shape[2] != 1:
        return volume, 1.0
    factor = side / longest_side(volume.shape, volume.spacing)
    return replace(volume, affine=np.diag([factor, factor, factor, 1.0]) @ volume.affine), factor


def on_one_footing(templates: Sequence[LandmarkTemplate]) -> list[LandmarkTemplate]:
    """Templates upright, and of those whose size is not known all as large as the first."""
    turned = [upright(template.volume) for template in templates]
    side = longest_side(turned[0].shape, turned[0].spacing)
    return [
        _moved(template, *as_large(volume, side)) for template, volume in zip(templates, turned, strict=True)
    ]


def _moved(template: LandmarkTemplate, volume: Volume, factor: float) -> LandmarkTemplate:
    marks = {}
    for name, mark in template.marks.items():
        x, y, z = mark.point
        marks[name] = Mark((x * factor, y * factor, z * factor), mark.spread * factor)
    return replace(template, volume=volume, marks=marks)
