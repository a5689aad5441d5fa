"""The default method from templates to landmarks: register, carry over, match textures, judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nibabel.affines import apply_affine

from fewshot.landmarks.carrying import carry
from fewshot.landmarks.matching import Evidence, Place, match
from fewshot.landmarks.model import LandmarkModel, Remembered
from fewshot.landmarks.result import Candidate, FoundLandmark
from fewshot.landmarks.template import LandmarkTemplate, to_voxels
from fewshot.landmarks.texture import Textures
from fewshot.model import Model
from fewshot.pipeline import timed
from fewshot.progress import Progress
from fewshot.volumes import SliceStack, Volume
from fewshot.volumes.windows import normalise, window_limits

FINEST = 1 / 256
"""The finest step as a share of the image's longest side at least: of more, nobody marks a landmark."""
TRUSTED = 0.15
"""A template whose registration correlates so much less than the best one's is not asked."""
LEAST = 0.35
"""Least confidence of a landmark that is said to be in the image."""

OUTSIDE = "it lies outside of what this image shows"
UNLIKE = "nothing in this image looks like it"
"""Reasons why a landmark was not found."""


def remember(templates: Sequence[LandmarkTemplate], regions: Model) -> list[Remembered]:
    """What has to be kept of the templates, in order of the landmarks that the model has."""
    window = regions.spec.window
    result = []
    step = float(np.median([_step(template.volume) for template in templates]))
    for template in templates:
        volume = template.volume
        spacing = np.array(volume.spacing)
        points = np.full((len(regions.labels), 3), np.nan)
        for row, name in enumerate(regions.labels):
            if name in template.marks:
                points[row] = to_voxels(volume, [template.marks[name].point])[0] * spacing
        image = normalise(volume.array, window_limits(volume, window))
        marked = points[np.isfinite(points).all(1)]
        result.append(Remembered(points, Textures.around(image, spacing, marked, step)))
    return result


def by_registration(
    stack: SliceStack, model: LandmarkModel, timings: dict[str, float], progress: Progress
) -> list[FoundLandmark] | None:
    """All landmarks of a model in a volume, in order; None where no template could be registered."""
    volume, atlas = stack.volume, model.regions.atlas
    assert atlas
    spacing = np.array(volume.spacing)
    progress("register", 0, 2)
    with timed(timings, "register"):
        located = atlas.locate(stack, any_pose=True)
    progress("register", 1, 2)
    if located is None:
        return None
    best = max(of.similarity for _, of in located.found)
    with timed(timings, "match"):
        evidence = []
        for template, of in located.found:
            if of.similarity < best - TRUSTED:
                continue
            known = model.remembered[next(i for i, t in enumerate(atlas.templates) if t is template)]
            rows = np.flatnonzero(np.isfinite(known.points).all(1))
            geometry = np.array(template.classes.shape), np.array(template.spacing)
            moved = dict(
                zip(
                    rows.tolist(),
                    carry(known.points[rows], of, template=geometry, query=spacing),
                    strict=True,
                )
            )
            row_of = {int(row): number for number, row in enumerate(rows)}
            count = range(len(model.names))
            evidence.append(
                Evidence(known.textures, [moved.get(k) for k in count], [row_of.get(k) for k in count])
            )
        image = normalise(volume.array, stack.limits)
        places = match(image, spacing, evidence, len(model.names))
    progress("register", 2, 2)
    step = float(np.median([of.textures.step for of in model.remembered]))
    return [_judged(name, places.get(k), volume, step) for k, name in enumerate(model.names)]


def _judged(name: str, of: Place | None, volume: Volume, step: float) -> FoundLandmark:
    """Whether a place is the landmark."""
    spacing = np.array(volume.spacing)
    if of is None or not _within(of.place / spacing, volume):
        return FoundLandmark(name, found=False, confidence=0.0, reason=OUTSIDE)
    confidence = confidence_of(of.likeness, of.cycle / step, of.off / step)
    places = [
        Candidate(_world(place, volume), float(np.clip(share, 0, 1)))
        for place, share in [
            (of.place, confidence),
            *((place, confidence * alike / max(of.likeness, 1e-6)) for place, alike in of.rivals),
        ]
        if _within(place / spacing, volume)
    ]
    if confidence < LEAST:
        return FoundLandmark(
            name, found=False, confidence=confidence, candidates=tuple(places), reason=UNLIKE
        )
    return FoundLandmark(name, found=True, confidence=confidence, candidates=tuple(places))


def confidence_of(likeness: float, cycle: float, off: float) -> float:
    """How sure a place is, 0 to 1.

    Args:
        likeness: correlation with the templates' texture.
        cycle: how far from the landmark it is when sought in the templates again, in steps.
        off: how far from where the other landmarks expect it, in steps.
    """
    return float(np.clip(likeness, 0, 1) * np.exp(-0.5 * (cycle / 6) ** 2) * np.exp(-0.5 * (off / 12) ** 2))


def _world(place: np.ndarray, volume: Volume) -> tuple[float, float, float]:
    x, y, z = apply_affine(volume.affine, place / np.array(volume.spacing))
    return float(x), float(y), float(z)


def _within(voxel: np.ndarray, volume: Volume) -> bool:
    return bool((voxel >= -0.5).all() and (voxel <= np.array(volume.shape) - 0.5).all())


def _step(volume: Volume) -> float:
    """The finest step in a template, mm: the geometric mean of its spacing, unless that is finer than matters."""
    sides = [(side, step) for side, step in zip(volume.shape, volume.spacing, strict=True) if side > 1]
    mean = float(np.exp(np.mean([np.log(step) for _, step in sides])))
    return max(mean, FINEST * max(side * step for side, step in sides))
