"""Landmarks of pictures: what the adapter says of each pixel, near where registration and arrangement expect it.

A cube of voxels around a point is found again by its grey values alone. A square of pixels is not: it has a tenth of
the values, and in a radiograph everything lies on top of everything. The adapter's probabilities take its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, label

from fewshot.landmarks.arrangement import expected
from fewshot.landmarks.matching import Place, other_tops

WIDTH = 0.06
"""Deviation of what registration says by one template, as a share of the longest side; half of it once the arrangement
is known."""
WIDEST = 2.0
"""With N templates the deviation is sqrt(N) times as much, this much at most: the more the adapter has seen, the less
has a place to tell it."""
REACH = 2.5
"""Of those deviations: farther away nothing is looked at."""
WEIGHT = 0.75
"""Exponent of the probabilities: neighbouring pixels share their errors, as in the default adapter."""
LEAST = 1e-4
PART = 0.3
"""What scores less than this share of the best pixel belongs to no component."""


def look(
    probabilities: np.ndarray, spacing: np.ndarray, carried: Sequence[Mapping[int, np.ndarray]]
) -> dict[int, Place]:
    """Find landmarks near where registration puts them.

    Args:
        probabilities: of all landmarks in a picture ``[X, Y, 1, N]``.
        spacing: its mm ``[3]``.
        carried: for every template landmark (its number from 0) -> where registration puts it, mm ``[3]``.

    Returns:
        Landmark -> place, for those that some template carried over; `Place.likeness` is the best probability there.
    """
    side = float((np.array(probabilities.shape[:2]) * spacing[:2]).max())
    names = Counter(name for of in carried for name in of)
    wider = {name: min(WIDEST, seen**0.5) for name, seen in names.items()}
    widths = {name: WIDTH * side * factor for name, factor in wider.items()}
    start = {name: np.median([of[name] for of in carried if name in of], axis=0) for name in names}
    first = {name: _near(probabilities[..., name], spacing, at, widths[name]) for name, at in start.items()}
    found = {name: of.place for name, of in first.items()}
    wanted = expected(found, carried, {name: of.likeness for name, of in first.items()})
    places = {}
    for name, at in found.items():
        width = widths[name]
        middle = (at + wanted.get(name, at)) / 2
        places[name] = place = _near(probabilities[..., name], spacing, middle, width / 2)
        # who may look farther is as often farther off
        place.off = float(np.linalg.norm(place.place - wanted.get(name, start[name]))) / wider[name]
        place.rivals = [
            (other, alike)
            for other, alike in first[name].rivals
            if np.linalg.norm(other - place.place) > width / 2
        ]
    return places


def _near(probability: np.ndarray, spacing: np.ndarray, wanted: np.ndarray, width: float) -> Place:
    """The weighted centre of the best component of what is probable ``[X, Y, 1]`` around a place, mm."""
    reach = np.ceil(REACH * width / spacing) * (np.array(probability.shape) > 1)
    middle = np.clip(np.round(wanted / spacing), 0, np.array(probability.shape) - 1)
    low = np.maximum(middle - reach, 0).astype(int)
    high = np.minimum(middle + reach + 1, probability.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    ways = np.stack(np.meshgrid(*map(np.arange, high - low), indexing="ij"), axis=-1)
    places = (ways + low) * spacing
    part = probability[box].astype(np.float32)
    away = ((places - wanted)[..., :2] ** 2).sum(-1)
    scores = np.maximum(part, LEAST) ** WEIGHT * np.exp(-0.5 * away / width**2)
    components, _ = label(scores >= PART * scores.max(), np.ones((3, 3, 3)))
    best = np.bincount(components.ravel(), scores.ravel())[1:].argmax() + 1
    weights = np.where(components == best, scores, 0)
    place = (places * weights[..., None]).sum((0, 1, 2)) / weights.sum()
    smooth = gaussian_filter(scores, [*(width / 6 / spacing[:2]), 0])
    peak = np.unravel_index(smooth.argmax(), smooth.shape)
    return Place(place, float(part[weights > 0].max()), rivals=other_tops(smooth, part, peak, places))
