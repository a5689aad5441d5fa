"""What the baselines share: one slicing for all volumes, class maps that know what is unknown, predictions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from fewshot import __version__
from fewshot.errors import FewshotError
from fewshot.prediction import Prediction
from fewshot.support import Template, label_names
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec
from fewshot.volumes.volume import spacing_of

UNKNOWN = -1
"""Class of voxels of which a template says nothing."""


def checked_labels(templates: Sequence[Template], labels: Mapping[str, int]) -> dict[str, int]:
    """The wanted labels, all of which some template shows.

    Raises:
        FewshotError: without templates, or for a label that none of them shows.
    """
    if not templates:
        raise FewshotError("There is no template; label a structure in at least one volume first.")
    drawn = label_names(templates)
    if missing := [name for name in labels if name not in drawn]:
        raise FewshotError(f"No template shows {', '.join(missing)}; label it in one, or leave it out.")
    return dict(labels)


def slicing(volumes: Sequence[Volume]) -> SliceSpec:
    """Plane and window that suit the template volumes; sizes do not matter here."""
    return replace(resolve_spec(SliceSpec(), volumes), pixel_mm=None)


def stack_of(volume: Volume, spec: SliceSpec) -> SliceStack:
    """A volume in the orientation of the spec's plane, voxels untouched."""
    return SliceStack(volume, spec, patch=1)


def spacing(stack: SliceStack) -> tuple[float, float, float]:
    """Millimetres between slices, rows and columns; all 1 where the volume is not calibrated."""
    return spacing_of(stack.affine) if stack.volume.calibrated else (1.0, 1.0, 1.0)


def known_classes(template: Template, stack: SliceStack, labels: Sequence[str]) -> np.ndarray:
    """int16 ``[S, rows, cols]``: 0 background, k the k-th of ``labels``, else ``UNKNOWN``.

    Unknown are, unless the template is complete, the slices without any label, and always drawn structures
    that are not among ``labels``.
    """
    lookup = np.full(int(template.labels.max()) + 1, UNKNOWN, np.int16)
    lookup[0] = 0
    for index, name in enumerate(labels, start=1):
        if (value := template.names.get(name, len(lookup))) < len(lookup):
            lookup[value] = index
    classes = stack.slices(lookup[template.labels])
    if not template.complete:
        classes[~(stack.slices(template.labels) > 0).any((1, 2))] = UNKNOWN
    return np.ascontiguousarray(classes)


def fill_between(classes: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """Labels for unknown slices that lie between known ones, by shape-based interpolation.

    The signed distances to each structure in the two nearest known slices are interpolated linearly (Raya &
    Udupa 1990). A structure that only one of the two shows ends half-way.

    Args:
        classes: ``[S, rows, cols]`` of ``known_classes``.
        steps: mm between rows and columns.
    """
    known = np.flatnonzero((classes != UNKNOWN).any((1, 2)))
    filled = classes.copy()
    for first, last in itertools.pairwise(known):
        if last - first == 1:
            continue
        present = sorted(
            {*np.unique(classes[first]).tolist(), *np.unique(classes[last]).tolist()} - {0, UNKNOWN}
        )
        ends = {k: [_signed_distance(classes[end] == k, steps) for end in (first, last)] for k in present}
        for k, (a, b) in ends.items():
            ends[k] = [-b.clip(0) if a is None else a, -a.clip(0) if b is None else b]
        for index in range(first + 1, last):
            share = (index - first) / (last - first)
            best = np.zeros(classes.shape[1:], np.float32)
            filled[index] = 0
            for k, (a, b) in ends.items():
                inside = (1 - share) * a + share * b
                filled[index][inside > best] = k
                best = np.maximum(best, inside)
    return filled


def predicted(
    stack: SliceStack,
    maps: np.ndarray,
    classes: np.ndarray,
    *,
    labels: dict[str, int],
    timings: dict[str, float],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
) -> Prediction:
    """A prediction from probabilities float16 ``[S, rows, cols, L + 1]`` and the classes drawn from them."""
    certainty = np.take_along_axis(maps, classes[..., None].astype(np.intp), axis=-1)[..., 0]
    return Prediction.from_slices(
        stack,
        classes,
        certainty,
        maps,
        labels=labels,
        timings={name: round(seconds, 4) for name, seconds in timings.items()},
        provenance={"fewshot": __version__, **provenance},
        notes=[*stack.volume.notes, *notes],
    )


def nothing_to_see(stack: SliceStack) -> str | None:
    """A note for an image that is constant or all air."""
    return "The image is constant or all air: there was nothing to look for." if stack.air.all() else None


def _signed_distance(mask: np.ndarray, steps: Sequence[float]) -> Any:
    """Millimetres to the outline, positive inside; None for an empty mask."""
    if not mask.any():
        return None
    outside = ndimage.distance_transform_edt(~mask, steps)
    return (ndimage.distance_transform_edt(np.pad(mask, 1), steps)[1:-1, 1:-1] - outside).astype(np.float32)
