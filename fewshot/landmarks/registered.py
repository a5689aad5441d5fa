"""The baseline of landmarks: templates are registered with a volume, and their points are carried over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from nibabel.affines import apply_affine

from fewshot import __version__
from fewshot.atlas import Atlas, Registered
from fewshot.auto import build_atlas
from fewshot.errors import FewshotError
from fewshot.landmarks.carrying import carry
from fewshot.landmarks.result import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.landmarks.rois import as_regions, default_radius, values_of
from fewshot.landmarks.template import LandmarkTemplate, inside, landmark_names, to_voxels
from fewshot.pipeline import DEFAULT_SPEC
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec

NAME = "registration"


@dataclass(frozen=True, eq=False)
class RegisteredTemplates:
    """Templates that are registered with every volume: affine map, then demons, as in the default adapter's atlas.

    Attributes:
        templates: their volumes and marks.
        atlas: their images, reduced.
        spec: how volumes are windowed.
    """

    templates: list[LandmarkTemplate]
    atlas: Atlas
    spec: SliceSpec

    @classmethod
    def of(cls, templates: Sequence[LandmarkTemplate], *, spec: SliceSpec = DEFAULT_SPEC) -> Self:
        """Prepare the templates.

        Raises:
            FewshotError: without a template.
        """
        if not templates:
            raise FewshotError("There is no template; mark a landmark in at least one volume first.")
        values = values_of(templates)
        radius = default_radius(templates)
        spec = resolve_spec(spec, [template.volume for template in templates])
        regions = [as_regions(template, values, radius) for template in templates]
        return cls([*templates], build_atlas(regions, list(values), spec, patch=1), spec)

    def find(self, volume: Volume) -> LandmarkPrediction:
        """Carry the points into a volume; of several templates the median along each axis is taken.

        A landmark that more than half of its templates place outside the volume is not found.
        """
        start = time.perf_counter()
        located = self.atlas.locate(SliceStack(volume, self.spec, patch=1))
        found = [] if located is None else located.found
        carried = [
            (_carried(self.templates[self.atlas.templates.index(template)], of, volume), of.similarity)
            for template, of in found
        ]
        landmarks = {name: _joined(name, carried, volume) for name in landmark_names(self.templates)}
        seconds = round(time.perf_counter() - start, 4)
        return LandmarkPrediction(
            landmarks=landmarks,
            affine=volume.affine,
            shape=volume.shape,
            calibrated=volume.calibrated,
            timings={NAME: seconds, "total": seconds},
            provenance={
                "fewshot": __version__,
                "method": NAME,
                "templates": [of.volume.name for of in self.templates],
            },
            notes=[*volume.notes],
        )


def _carried(template: LandmarkTemplate, of: Registered, volume: Volume) -> dict[str, np.ndarray | None]:
    """Where a template's points lie in a volume, voxels ``[3]``; None where the volume does not show them."""
    spacing = np.array(volume.spacing)
    points = to_voxels(template.volume, [mark.point for mark in template.marks.values()])
    there = np.array(template.volume.shape), np.array(template.volume.spacing)
    moved = carry(points * there[1], of, template=there, query=(np.array(volume.shape), spacing))
    return {
        name: None if of is None else of.place / spacing
        for name, of in zip(template.marks, moved, strict=True)
    }


def _joined(
    name: str, carried: Sequence[tuple[dict[str, np.ndarray | None], float]], volume: Volume
) -> FoundLandmark:
    """One answer from all templates that mark a landmark."""
    told = [(points[name], similarity) for points, similarity in carried if name in points]
    if not told:
        reason = "no template with it could be registered with this image"
        return FoundLandmark(name, found=False, confidence=0.0, reason=reason)
    there = [(point, similarity) for point, similarity in told if point is not None]
    confidence = float(np.clip(np.mean([similarity for _, similarity in there or told]), 0, 1))
    outside = FoundLandmark(
        name, found=False, confidence=confidence, reason="the templates place it outside this image"
    )
    if 2 * len(there) < len(told):
        return outside
    x, y, z = apply_affine(volume.affine, np.median([point for point, _ in there], axis=0)).tolist()
    if not inside(volume, (x, y, z)):
        return outside
    return FoundLandmark(
        name, found=True, confidence=confidence, candidates=(Candidate((x, y, z), confidence),)
    )
