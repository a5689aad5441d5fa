"""The road of landmarks on one page: templates in, a model out; a volume and a model in, points out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from fewshot import __version__
from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.landmarks.by_registration import UNLIKE, UNPLACED, by_registration, remember
from fewshot.landmarks.candidates import Component, components_of
from fewshot.landmarks.model import LandmarkModel
from fewshot.landmarks.result import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.landmarks.rois import as_regions, default_radius, values_of
from fewshot.landmarks.template import LandmarkTemplate
from fewshot.landmarks.upright import as_large, longest_side, on_one_footing, upright
from fewshot.pipeline import DEFAULT_SPEC, classify_slices, fit, timed
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, SliceStack, Volume

CANDIDATES = 3
"""Places that are told of each landmark at most."""


def fit_landmarks(
    templates: Sequence[LandmarkTemplate],
    *,
    backbone: Backbone,
    bank: FeatureBank,
    method: str = "auto",
    options: dict[str, Any] | None = None,
    spec: SliceSpec = DEFAULT_SPEC,
    radius: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LandmarkModel:
    """Learn landmarks from templates: one model for all of them (paper, section 2, multi-label localisation).

    Args:
        templates: images with their landmarks; not every template needs every landmark.
        method: an adapter, whose components are the landmarks; or ``auto``.
        options: the adapter's settings that differ from its defaults.
        spec: how to cut volumes into slices; what it leaves open is decided from the templates.
        radius: mm, half the side of the box around each landmark; by default `default_radius`.
        seed: same seed, same model.

    Raises:
        FewshotError: without templates, or for an unknown method or option.
    """
    if not templates:
        raise FewshotError("There is no template; mark a landmark in at least one volume first.")
    templates = on_one_footing(templates)
    radius = radius or default_radius(templates)
    values = values_of(templates)
    regions = fit(
        [as_regions(template, values, radius) for template in templates],
        labels=values,
        adapter=method,
        options=options,
        backbone=backbone,
        bank=bank,
        spec=spec,
        cross_validate=False,
        seed=seed,
        progress=progress,
    )
    remembered = remember(templates, regions) if regions.atlas else ()
    return LandmarkModel(method=method, regions=regions, radius=radius, remembered=remembered)


def find_landmarks(
    volume: Volume,
    model: LandmarkModel,
    *,
    backbone: Backbone,
    bank: FeatureBank,
    progress: Progress = silent,
) -> LandmarkPrediction:
    """Find all landmarks of a model in a volume.

    Raises:
        FewshotError: if the model was fitted on features of another backbone.
    """
    model.require(backbone)
    timings: dict[str, float] = {}
    with timed(timings, "slices"):
        shown, factor = _on_the_templates_footing(volume, model)
        stack = SliceStack(shown, model.regions.spec, patch=backbone.patch)
    notes = [*volume.notes, *stack.notes]
    seen = _Appearance(stack, model, backbone, bank, timings, progress)
    landmarks = None
    if stack.air.all():
        notes.append("The image is constant or all air: there was nothing to look for.")
    elif model.remembered:
        landmarks = by_registration(stack, model, timings, progress, seen.probabilities)
        if landmarks is None:
            notes.append(
                "The templates could not be registered with this image, so no landmark counts as found."
            )
            landmarks = [replace(of, found=False, reason=UNPLACED) for of in seen.components()]
    if landmarks is None:
        landmarks = seen.components()
    return LandmarkPrediction(
        landmarks={name: _moved_back(of, factor) for name, of in zip(model.names, landmarks, strict=True)},
        affine=volume.affine,
        shape=volume.shape,
        calibrated=volume.calibrated,
        timings={**timings, "total": sum(timings.values())},
        provenance={
            "fewshot": __version__,
            "method": model.method,
            "model": model.digest,
            "created": model.created,
            "backbone": {"name": backbone.name, "digest": backbone.digest, "layers": backbone.layers},
            "templates": model.templates,
        },
        notes=notes,
    )


def _on_the_templates_footing(volume: Volume, model: LandmarkModel) -> tuple[Volume, float]:
    """A slice as the templates were shown; and the factor from its own coordinates to those that it has then."""
    shown = upright(volume)
    if not model.regions.atlas:
        return shown, 1.0
    sides = [longest_side(of.classes.shape, of.spacing) for of in model.regions.atlas.templates]
    return as_large(shown, statistics.median(sides))


def _moved_back(of: FoundLandmark, factor: float) -> FoundLandmark:
    if factor == 1:
        return of
    places = []
    for place in of.candidates:
        x, y, z = place.point
        places.append(replace(place, point=(x / factor, y / factor, z / factor)))
    return replace(of, candidates=tuple(places))


@dataclass(frozen=True, eq=False)
class _Appearance:
    """What the adapter says of a volume's pixels."""

    stack: SliceStack
    model: LandmarkModel
    backbone: Backbone
    bank: FeatureBank
    timings: dict[str, float]
    progress: Progress

    def probabilities(self) -> np.ndarray:
        """Of every landmark at every voxel, float16 ``[X, Y, Z, N]``."""
        *_, maps = self._classify(probabilities=True)
        assert maps is not None
        return np.stack([self.stack.restore(maps[..., k]) for k in range(1, maps.shape[-1])], axis=-1)

    def components(self) -> list[FoundLandmark]:
        """The paper's way: the adapter finds regions, and their best component is the landmark."""
        classes, certainty, _ = self._classify(probabilities=False)
        names = self.model.names
        with timed(self.timings, "components"):
            restored = self.stack.restore(classes), self.stack.restore(certainty)
            components = components_of(*restored, len(names), most=CANDIDATES)
        return [
            _told(name, of_label, self.stack.volume) for name, of_label in zip(names, components, strict=True)
        ]

    def _classify(self, *, probabilities: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        with timed(self.timings, "features"):
            entry = self.bank.features(self.stack, self.backbone, progress=self.progress)
        with timed(self.timings, "adapter"):
            return classify_slices(
                self.stack, entry, self.model.regions, probabilities=probabilities, progress=self.progress
            )


def _told(name: str, components: Sequence[Component], volume: Volume) -> FoundLandmark:
    if not components:
        return FoundLandmark(name, found=False, confidence=0.0, reason=UNLIKE)
    places = [
        Candidate(tuple(apply_affine(volume.affine, of.centre).tolist()), of.confidence) for of in components
    ]
    return FoundLandmark(name, found=True, confidence=places[0].confidence, candidates=tuple(places))
