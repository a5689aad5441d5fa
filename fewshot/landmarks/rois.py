"""Landmarks as regions of interest: small boxes that the adapters learn as they learn any label (paper, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot.landmarks.template import LandmarkTemplate, landmark_names, to_voxels
from fewshot.support import Template

SHARE = 0.02
"""Half a box's side as a share of the image's longest side, where nobody says otherwise."""
LEAST_VOXELS = 1.5
"""Half a side in voxels at least: one voxel alone is no region."""


def default_radius(templates: Sequence[LandmarkTemplate]) -> float:
    """Half the side of the boxes, mm: the same for all templates."""
    of_templates = []
    for template in templates:
        spacing = np.array(template.volume.spacing)
        sides = [(side, step) for side, step in zip(template.volume.shape, spacing, strict=True) if side > 1]
        longest = max((side * step for side, step in sides), default=1.0)
        finest = min((step for _, step in sides), default=1.0)
        of_templates.append(max(SHARE * longest, LEAST_VOXELS * finest))
    return float(np.median(of_templates))


def as_regions(template: LandmarkTemplate, values: dict[str, int], radius: float) -> Template:
    """A landmark template as a labelled one; where boxes overlap, a voxel belongs to the nearest landmark.

    Args:
        template: an image with its landmarks.
        values: landmark name -> value in the label map.
        radius: mm, half the side of a box; a landmark that was drawn larger has a larger box.
    """
    volume = template.volume
    labels = np.zeros(volume.shape, np.uint16)
    nearest = np.full(volume.shape, np.inf, np.float32)
    spacing = np.array(volume.spacing)
    for name, mark in template.marks.items():
        if name not in values:
            continue
        centre = to_voxels(volume, [mark.point])[0]
        reach = np.maximum(max(radius, mark.spread) / spacing, 0.5)
        low = np.maximum(np.ceil(centre - reach), 0).astype(int)
        high = np.minimum(np.floor(centre + reach) + 1, volume.shape).astype(int)
        low = np.minimum(low, high - 1)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[box]
        distance = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True))
        closer = distance < nearest[box]
        nearest[box] = np.where(closer, distance, nearest[box])
        labels[box][closer] = values[name]
    names = {
        name: value for name, value in values.items() if name in template.marks or name in template.absent
    }
    return Template(volume=volume, labels=labels, names=names, complete=True)


def values_of(templates: Sequence[LandmarkTemplate]) -> dict[str, int]:
    """Landmark name -> value 1..N in label maps."""
    return {name: value for value, name in enumerate(landmark_names(templates), start=1)}
