"""The baseline of landmarks: templates are registered with a volume, and their points are carried over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from fewshot import __version__
from fewshot.atlas import Atlas, Registered
from fewshot.auto import build_atlas
from fewshot.errors import FewshotError
from fewshot.landmarks.result import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.landmarks.rois import as_regions, default_radius, values_of
from fewshot.landmarks.template import LandmarkTemplate, inside, landmark_names, to_voxels
from fewshot.pipeline import DEFAULT_SPEC
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec

NAME = "registration"
STEPS = 12
"""Of Newton's method, from the nearest point of the grid on."""
BEYOND = 1.0
"""Cells of the grid by which a point may lie outside it: the map is continued linearly."""
OFF = 0.5
"""Cells of the grid by which the place that was found may be wrong; else the template's point lies nowhere in it."""


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
            (_carried(self.templates[self.atlas.templates.index(template)], of), of.similarity)
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


def _carried(template: LandmarkTemplate, of: Registered) -> dict[str, np.ndarray | None]:
    """Where a template's points lie in a volume, voxel coordinates ``[3]``; None outside the registered region."""
    names = list(template.marks)
    voxels = to_voxels(template.volume, [template.marks[name].point for name in names])
    sides = np.array(template.volume.shape)
    extent = sides * np.array(template.volume.spacing)
    return dict(zip(names, carry((voxels + 0.5) / sides, of, extent), strict=True))


def carry(shares: np.ndarray, of: Registered, extent: np.ndarray) -> list[np.ndarray | None]:
    """Where points of a template lie in the query that it was registered with: the inverse of its map.

    Args:
        shares: ``[N, 3]``, shares of the template's extent.
        of: the map from the query to the template.
        extent: mm ``[3]`` of the template.

    Returns:
        Voxel coordinates ``[3]`` in the query for each; None for what lies outside the region that was registered.
    """
    places = of.places.astype(np.float64) * extent  # mm in the template
    sides = np.array(places.shape[:3])
    slopes = np.stack(
        [
            np.gradient(places, axis=axis) if side > 1 else np.zeros_like(places)
            for axis, side in enumerate(sides)
        ],
        axis=-1,
    )  # [x, y, z, mm, grid]
    cell = float(np.median(np.linalg.norm(slopes, axis=-2)[..., sides > 1]))
    carried: list[np.ndarray | None] = []
    for point in shares * extent:
        off = ((places - point) ** 2).sum(-1)
        at = np.array(np.unravel_index(int(off.argmin()), off.shape), np.float64)
        best, least = at, np.inf
        for _ in range(STEPS):
            on = np.clip(at, 0, sides - 1)
            slope = _at(slopes, on)
            rest = point - (_at(places, on) + slope @ (at - on))
            if (wrong := float(np.linalg.norm(rest))) < least:
                best, least = at, wrong
            step = np.linalg.pinv(slope, rcond=1e-3) @ rest
            at = np.clip(at + np.clip(step, -1, 1), -0.5 - BEYOND, sides - 0.5 + BEYOND)
        ratio = (of.high - of.low) / sides
        carried.append(of.low + (best + 0.5) * ratio - 0.5 if least <= OFF * cell else None)
    return carried


def _at(grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values ``[...]`` of a grid ``[x, y, z, ...]`` at a position ``[3]``, linearly."""
    flat = grid.reshape(*grid.shape[:3], -1)
    low = np.floor(at).astype(int)
    box = tuple(slice(a, a + 2) for a in low)
    part = flat[box]
    values = [
        map_coordinates(part[..., c], (at - low)[:, None], order=1, mode="nearest")[0]
        for c in range(part.shape[-1])
    ]
    return np.array(values).reshape(grid.shape[3:])


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
