"""The default way to find landmarks: carried over by registration, refined by texture, checked by their arrangement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import maximum_filter

from fewshot.landmarks.arrangement import expected
from fewshot.landmarks.carrying import Carried
from fewshot.landmarks.texture import HALF, RADIUS, SCALES, SEARCH, Textures, likeness, offsets, sampled

PENALTY = 0.05
"""Likeness that a place may have less for every squared deviation that it is nearer to where it is expected."""
DEVIATION = 3.0
"""Of registration and arrangement at least, in finest steps."""
PASSES = 2
"""How often places and arrangement are made to fit each other."""
LEAST_TRUST = 0.05
"""Weight of a place that looks like nothing."""
RIVALS = 3
NEARLY = 0.85
"""A second place whose score is this share of the best one's is told as well."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One template in the query.

    Attributes:
        textures: around its landmarks.
        carried: where registration puts each landmark of the model; None where it does not, or has none.
        rows: for each landmark of the model, its row in the textures.
    """

    textures: Textures
    carried: Sequence[Carried | None]
    rows: Sequence[int | None]

    @property
    def places(self) -> dict[int, np.ndarray]:
        """Landmark (its number from 0) -> where registration puts it, mm ``[3]``."""
        return {k: of.place for k, of in enumerate(self.carried) if of is not None}

    @property
    def angle(self) -> float:
        """Degrees by which the template is turned in a picture, about its axis of depth."""
        matrices = [of.matrix for of in self.carried if of is not None]
        turns = [abs(np.arctan2(of[1, 0] - of[0, 1], of[0, 0] + of[1, 1])) for of in matrices]
        return float(np.degrees(np.median(turns))) if turns else 0.0


@dataclass
class Place:
    """Where a landmark is thought to be.

    Attributes:
        place: mm along the query's voxel axes ``[3]``.
        likeness: of the textures, -1 to 1, mean over the templates; in a picture the adapter's probability.
        cycle: mm from the landmark when what was found is sought in the template again; median over the templates.
        off: mm from where registration and the arrangement expect it; less in proportion where it was sought farther.
        rivals: further places that look nearly as good, with their likeness.
    """

    place: np.ndarray
    likeness: float = 0.0
    cycle: float = 0.0
    off: float = 0.0
    rivals: list[tuple[np.ndarray, float]] = field(default_factory=list)


def match(
    image: np.ndarray, spacing: np.ndarray, evidence: Sequence[Evidence], landmarks: int
) -> dict[int, Place]:
    """Find landmarks near where registration puts them.

    Args:
        image: the query ``[X, Y, Z]`` in [0, 1].
        spacing: its mm ``[3]``.
        evidence: of every template that was registered.
        landmarks: how many the model has.

    Returns:
        Landmark (its number from 0) -> place, for those that some template carried over.
    """
    step = float(np.median([of.textures.step for of in evidence]))
    carried = [of.places for of in evidence]
    start = {
        k: np.median([of[k] for of in carried if k in of], axis=0)
        for k in range(landmarks)
        if any(k in of for of in carried)
    }

    def best(k: int, at: np.ndarray, deviation: float, scale: int) -> Place:
        return _best(image, spacing, evidence, k, at, deviation, scale, step * SCALES[scale])

    places = {k: Place(place) for k, place in start.items()}
    settled = wanted = arranged = start
    far: dict[int, list[np.ndarray]] = {}
    for scale in range(len(SCALES)):
        for _ in range(PASSES):
            deviation = _deviation(places, wanted, step)
            places = {k: best(k, wanted[k], deviation, scale) for k in start}
            trust = {k: max(of.likeness, LEAST_TRUST) for k, of in places.items()}
            said = expected({k: of.place for k, of in places.items()}, carried, trust)
            wanted, arranged = settled | said, start | said
        if scale == 0:  # what no others place is sought on where it was found
            settled = {k: of.place for k, of in places.items()}
            wanted = settled | said
            far = {k: [place for place, _ in of.rivals] for k, of in places.items()}
    for k, of in places.items():
        of.off = float(np.linalg.norm(of.place - arranged[k]))
        of.cycle = _cycle(image, spacing, evidence, k, of.place, step)
        for place in far.get(k, ()):
            other = best(k, place, deviation, len(SCALES) - 1)
            known = [of.place, *(rival for rival, _ in of.rivals)]
            apart = min(float(np.linalg.norm(other.place - at)) for at in known) > RADIUS * step
            if apart and other.likeness >= NEARLY * of.likeness:
                of.rivals.append((other.place, other.likeness))
    return places


def _deviation(places: dict[int, Place], wanted: dict[int, np.ndarray], step: float) -> float:
    """How far places are from where they are expected, robustly: one number for all, for each alone is chance."""
    off = [float(np.linalg.norm(of.place - wanted[k])) for k, of in places.items()]
    return max(DEVIATION * step, 1.4826 * float(np.median(off or [0.0])))


def _best(
    image: np.ndarray,
    spacing: np.ndarray,
    evidence: Sequence[Evidence],
    landmark: int,
    wanted: np.ndarray,
    deviation: float,
    scale: int,
    step: float,
) -> Place:
    flat = image.shape[2] == 1
    region = sampled(image, spacing, wanted + offsets(RADIUS + SEARCH, step, flat=flat))
    maps = []
    for of in evidence:
        carried, row = of.carried[landmark], of.rows[landmark]
        if carried is not None and row is not None:
            pattern = of.textures.seen(
                scale, row, carried.matrix * step / (of.textures.step * SCALES[scale]), RADIUS
            )
            maps.append(likeness(region, pattern))
    alike = np.mean(maps, axis=0)
    ways = offsets(SEARCH, step, flat=flat)
    scores = alike - PENALTY * (ways**2).sum(-1) / deviation**2
    peak = np.unravel_index(scores.argmax(), scores.shape)
    place = wanted + ways[peak] + _between(scores, peak) * step
    return Place(place, float(alike[peak]), rivals=other_tops(scores, alike, peak, wanted + ways))


def _between(scores: np.ndarray, peak: Sequence[np.intp]) -> np.ndarray:
    """How far the top of a parabola through the neighbours lies from the highest place, in steps ``[3]``."""
    shift = np.zeros(3)
    for axis in range(3):
        at, side = int(peak[axis]), scores.shape[axis]
        if 0 < at < side - 1:
            before, here, after = (scores[(*peak[:axis], at + way, *peak[axis + 1 :])] for way in (-1, 0, 1))
            bend = before - 2 * here + after
            shift[axis] = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return shift


def other_tops(
    scores: np.ndarray, alike: np.ndarray, peak: Sequence[np.intp], places: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Other peaks whose score is nearly that of the best, with their likeness; the best ones first.

    On the border of what was looked at nobody knows whether it is a peak.

    Args:
        scores, alike: ``[x, y, z]``.
        peak: index of the best score.
        places: mm ``[x, y, z, 3]``.
    """
    best = float(scores[tuple(peak)])
    inner = np.zeros(scores.shape, bool)
    inner[tuple(slice(1, -1) if side > 2 else slice(None) for side in scores.shape)] = True
    tops = np.argwhere(
        inner & (scores == maximum_filter(scores, 3)) & (scores >= NEARLY * best) & (scores > 0)
    )
    others = sorted(
        (tuple(top) for top in tops if tuple(top) != tuple(peak)), key=lambda top: -float(scores[top])
    )
    return [(places[top], float(alike[top])) for top in others[: RIVALS - 1]]


def _cycle(
    image: np.ndarray,
    spacing: np.ndarray,
    evidence: Sequence[Evidence],
    landmark: int,
    place: np.ndarray,
    step: float,
) -> float:
    """Mutual nearest neighbours: what was found is sought in the template, and should come out at the landmark."""
    ways = []
    for of in evidence:
        carried, row = of.carried[landmark], of.rows[landmark]
        if carried is None or row is None:
            continue
        flat = image.shape[2] == 1
        own = of.textures.step
        steps = offsets(RADIUS, own, flat=flat) @ np.linalg.inv(carried.matrix).T
        pattern = sampled(image, spacing, place + steps)
        cube = of.textures.cubes[len(SCALES) - 1, row].astype(np.float32) / 255
        alike = likeness(cube, pattern)
        peak = np.unravel_index(alike.argmax(), alike.shape)
        ways.append(float(np.linalg.norm(np.array(peak) - (np.array(alike.shape) - 1) / 2) * own))
    return float(np.median(ways)) if ways else (HALF - RADIUS) * step
