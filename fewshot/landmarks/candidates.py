"""From probabilities to points: connected components, and the probability-weighted centre of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from fewshot.localize.components import component_sizes


@dataclass(frozen=True)
class Component:
    """A connected part of a landmark's region.

    Attributes:
        centre: probability-weighted centre, voxel coordinates ``[3]``.
        mass: sum of its probabilities.
        confidence: their mean.
    """

    centre: np.ndarray
    mass: float
    confidence: float


def components_of(
    classes: np.ndarray, certainty: np.ndarray, labels: int, *, most: int
) -> list[list[Component]]:
    """The components of every label, that of the largest mass first (paper, section 2: localisation ends here).

    Args:
        classes: integer ``[X, Y, Z]``, 0 background, k the k-th label.
        certainty: ``[X, Y, Z]``, probability of that class.
        labels: how many there are.
        most: so many components of each are told.
    """
    found: list[list[Component]] = []
    for label, box in enumerate(find_objects(classes.astype(np.int32), max_label=labels), start=1):
        if box is None:
            found.append([])
            continue
        parts, _ = component_sizes(classes[box] == label)
        weights = certainty[box].astype(np.float64)
        masses = np.bincount(parts.ravel(), weights.ravel())[1:]
        best = np.argsort(-masses, kind="stable")[:most] + 1
        low = [of.start for of in box]
        found.append([_component(parts == part, weights, low) for part in best])
    return found


def _component(mask: np.ndarray, weights: np.ndarray, low: Sequence[int]) -> Component:
    voxels = np.argwhere(mask)
    of_voxels = weights[mask]
    mass = float(of_voxels.sum())
    centre = np.average(voxels, axis=0, weights=of_voxels if mass > 0 else None) + low
    return Component(centre, mass, float(of_voxels.mean()))
