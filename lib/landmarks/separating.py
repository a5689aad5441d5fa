"""Organs and landmarks of one label map: a dot must not punch a hole into the organ that it lies in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

from lib.landmarks.naming import Rule

if TYPE_CHECKING:
    from fewshot.support import Template
    from fewshot.volumes import Volume

AUTO = "auto"


def without_landmarks(template: Template, is_landmark: Rule, plane: str) -> Template | None:
    """A template as segmentation learns from it; None if nothing but landmarks is drawn.

    A dot overwrites what was drawn before. It becomes what surrounds it on its slice, pixel by pixel the nearest one:
    the organ inside of an organ, background outside of all. A slice with nothing but dots is one without label, for
    whoever marked a landmark there did not look for organs.

    Args:
        template: with all labels of a submission.
        is_landmark: tells landmarks by their names.
        plane: in which slices are cut, `auto` for the plane of acquisition.
    """
    values = {value for name, value in template.names.items() if is_landmark(name)}
    names = {name: value for name, value in template.names.items() if value not in values}
    dots = template.values & values
    labels = template.labels
    if dots:
        labels = fill_dots(labels, dots, slice_axis(template.volume, plane), template.volume.spacing)
    if not labels.any():
        return None
    return replace(template, labels=labels, names=names)


def fill_dots(labels: np.ndarray, dots: Collection[int], axis: int, spacing: tuple[float, ...]) -> np.ndarray:
    """A label map `[X, Y, Z]` whose values `dots` are replaced by what surrounds them on slices across `axis`."""
    chosen = np.isin(np.arange(int(labels.max()) + 1), list(dots))
    is_dot = chosen[labels]
    result = np.where(is_dot, 0, labels).astype(labels.dtype)
    steps = np.delete(np.asarray(spacing), axis)
    slices, masks = np.moveaxis(result, axis, 0), np.moveaxis(is_dot, axis, 0)
    for index in np.flatnonzero(masks.any((1, 2))):
        if not slices[index].any():
            continue
        (box,) = find_objects(masks[index].astype(np.int8))
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        part, mask = slices[index][box], masks[index][box]  # views: `result` is changed
        if not mask.all():
            nearest = distance_transform_edt(
                mask, sampling=steps, return_distances=False, return_indices=True
            )
            part[mask] = part[tuple(nearest)][mask]
    return result


def slice_axis(volume: Volume, plane: str) -> int:
    """The array axis along which slices are stacked that somebody draws on."""
    from fewshot.volumes.planes import acquisition_plane, orientation

    chosen = acquisition_plane(volume) if plane == AUTO else plane
    return int(np.argmin(orientation(volume.affine, chosen)[:, 0]))
