"""The default method from templates to landmarks: register, carry over, look at what is there, judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine

from fewshot.atlas import AtlasTemplate, Registered
from fewshot.landmarks.appearance import look
from fewshot.landmarks.carrying import carry
from fewshot.landmarks.matching import Evidence, Place, match
from fewshot.landmarks.model import LandmarkModel, Remembered
from fewshot.landmarks.result import Candidate, FoundLandmark
from fewshot.landmarks.template import LandmarkTemplate, inside, to_voxels
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
TURNED = 25.0
"""Degrees: features of a picture that is turned more than this are others, those of its grey values turn with it. Where
most templates say that it is not, the others were registered wrongly."""
LEAST = 0.25
"""Least confidence of a landmark that is said to be in the image,"""
LEAST_PROBABLE = 0.1
"""and where it is a probability: background is a class of it."""
ENOUGH, SHARE = 6, 1 / 3
"""Of so many landmarks that should be in the image or more, such a share must be found, else chance has found them."""

OUTSIDE = "it lies outside of what this image shows"
UNLIKE = "nothing in this image looks like it"
STRANGE = "this image hardly looks like the templates"
UNPLACED = (
    "the templates could not be registered with this image; by appearance alone it may be at a candidate"
)
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
    stack: SliceStack,
    model: LandmarkModel,
    timings: dict[str, float],
    progress: Progress,
    probabilities: Callable[[], np.ndarray],
) -> list[FoundLandmark] | None:
    """All landmarks of a model in a volume, in order; None where no template could be registered.

    Args:
        probabilities: computes what the adapter says, ``[X, Y, Z, N]``; asked for pictures that are not turned.
    """
    volume, atlas = stack.volume, model.regions.atlas
    assert atlas
    progress("register", 0, 2)
    with timed(timings, "register"):
        located = atlas.locate(stack, any_pose=True)
    progress("register", 1, 2)
    if located is None:
        return None
    best = max(of.similarity for _, of in located.found)
    evidence = [
        _evidence(model, template, of, volume)
        for template, of in located.found
        if of.similarity >= best - TRUSTED
    ]
    straight = [of for of in evidence if of.angle < TURNED]
    by_pixels = volume.shape[2] == 1 and 2 * len(straight) > len(evidence)
    seen = probabilities() if by_pixels else None  # keeps its own time
    spacing = np.array(volume.spacing)
    with timed(timings, "match"):
        if seen is not None:
            places = look(seen, spacing, [of.places for of in straight])
        else:
            places = match(normalise(volume.array, stack.limits), spacing, evidence, len(model.names))
    progress("register", 2, 2)
    step = float(np.median([of.textures.step for of in model.remembered]))
    least = LEAST if seen is None else LEAST_PROBABLE
    judged = [_judged(name, places.get(k), volume, step, least) for k, name in enumerate(model.names)]
    expected = [of for of in judged if of.reason != OUTSIDE]
    if len(expected) >= ENOUGH and sum(of.found for of in expected) < SHARE * len(expected):
        return [replace(of, found=False, reason=STRANGE) if of.found else of for of in judged]
    return judged


def _evidence(model: LandmarkModel, template: AtlasTemplate, of: Registered, volume: Volume) -> Evidence:
    """What a registered template says of the model's landmarks."""
    assert model.regions.atlas
    index = next(i for i, other in enumerate(model.regions.atlas.templates) if other is template)
    known = model.remembered[index]
    marked = np.flatnonzero(np.isfinite(known.points).all(1)).tolist()
    there = np.array(template.classes.shape), np.array(template.spacing)
    here = np.array(volume.shape), np.array(volume.spacing)
    moved = carry(known.points[marked], of, template=there, query=here)
    carried = dict(zip(marked, moved, strict=True))
    rows = {landmark: row for row, landmark in enumerate(marked)}
    landmarks = range(len(model.names))
    return Evidence(known.textures, [carried.get(k) for k in landmarks], [rows.get(k) for k in landmarks])


def _judged(name: str, of: Place | None, volume: Volume, step: float, least: float) -> FoundLandmark:
    """Whether a place is the landmark."""
    if of is None or not inside(volume, _world(of.place, volume)):
        return FoundLandmark(name, found=False, confidence=0.0, reason=OUTSIDE)
    confidence = confidence_of(of.likeness, of.cycle / step, of.off / step)
    rivals = [
        Candidate(_world(place, volume), confidence * float(np.clip(alike / max(of.likeness, 1e-6), 0, 1)))
        for place, alike in of.rivals
        if inside(volume, _world(place, volume))
    ]
    places = [
        Candidate(_world(of.place, volume), confidence),
        *sorted(rivals, key=lambda rival: -rival.confidence),
    ]
    if confidence < least:
        return FoundLandmark(
            name, found=False, confidence=confidence, candidates=tuple(places), reason=UNLIKE
        )
    return FoundLandmark(name, found=True, confidence=confidence, candidates=tuple(places))


def confidence_of(likeness: float, cycle: float, off: float) -> float:
    """How sure a place is, 0 to 1.

    Args:
        likeness: correlation with the templates' texture, or probability.
        cycle: how far from the landmark it is when sought in the templates again, in steps.
        off: how far from where the other landmarks expect it, in steps.
    """
    return float(np.clip(likeness, 0, 1) * np.exp(-0.5 * (cycle / 6) ** 2) * np.exp(-0.5 * (off / 12) ** 2))


def _world(place: np.ndarray, volume: Volume) -> tuple[float, float, float]:
    x, y, z = apply_affine(volume.affine, place / np.array(volume.spacing))
    return float(x), float(y), float(z)


def _step(volume: Volume) -> float:
    """The finest step in a template, mm: the geometric mean of its spacing, unless that is finer than matters."""
    sides = [(side, step) for side, step in zip(volume.shape, volume.spacing, strict=True) if side > 1]
    mean = float(np.exp(np.mean([np.log(step) for _, step in sides])))
    return max(mean, FINEST * max(side * step for side, step in sides))
