"""The arrangement of landmarks: where the others say that a landmark should be.

A landmark found alone may be its mirror image, or a neighbour that looks alike; all of them together are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LEAST = 3
"""Others that are needed to say anything."""
AFFINE = 6
"""Others from which an affine map is estimated (in space four determine it); with fewer they are only shifted."""
NEAR = 0.5
"""Deviation of the weight of the others, in terms of how far all are spread: near ones tell more."""
RIDGE = 0.1
"""How strongly the affine map is held to no distortion, in terms of that spread: landmarks may lie in a plane."""
ROUNDS = 3
TUNING = 4.7
"""Of Tukey's biweight, in robust standard deviations."""


def expected(
    found: Mapping[int, np.ndarray],
    templates: Sequence[Mapping[int, np.ndarray]],
    confidence: Mapping[int, float],
) -> dict[int, np.ndarray]:
    """Where each landmark should be by all others: leave it out, move each template onto what was found, average.

    Args:
        found: landmark -> mm ``[3]`` in the query.
        templates: for each template landmark -> mm ``[3]`` in the query, as registration carried it there.
        confidence: landmark -> weight of what was found.

    Returns:
        Landmark -> mm ``[3]``; without those for which every template has too few others.
    """
    result = {}
    for landmark in dict.fromkeys(name for template in templates for name in template):
        places = []
        for template in templates:
            others = [name for name in template if name in found and name != landmark]
            if landmark in template and len(others) >= LEAST:
                source = np.array([template[name] for name in others])
                moves = np.array([found[name] for name in others]) - source
                weights = np.array([confidence[name] for name in others])
                places.append(template[landmark] + _move(template[landmark], source, moves, weights))
        if places:
            result[landmark] = np.median(places, axis=0)
    return result


def _move(point: np.ndarray, source: np.ndarray, moves: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How a point moves as the points around it do, robustly against some that are wrong."""
    spread = float(np.sqrt(((source - source.mean(0)) ** 2).sum(1).mean())) + 1e-9
    near = np.exp(-0.5 * ((source - point) ** 2).sum(1) / (NEAR * spread) ** 2) + 1e-3
    design = np.hstack([(source - point) / spread, np.ones((len(source), 1))])
    ridge = np.diag([RIDGE if len(source) >= AFFINE else 1e3] * 3 + [0.0])
    # begun at a shift that no wrong point moves: a fit of all would bend to it, and take those around it for wrong
    residual = np.linalg.norm(moves - _median(moves, weights), axis=1)
    solution = np.zeros((4, 3))
    for _ in range(ROUNDS):
        scale = max(1.4826 * float(np.median(residual)), 1e-6)
        robust = np.clip(1 - (residual / (TUNING * scale)) ** 2, 1e-6, 1) ** 2
        of_points = near * robust * (weights + 1e-3)
        root = np.sqrt(of_points / of_points.sum())[:, None]
        left, right = np.vstack([root * design, ridge]), np.vstack([root * moves, np.zeros((4, 3))])
        solution, *_ = np.linalg.lstsq(left, right, rcond=None)
        residual = np.linalg.norm(design @ solution - moves, axis=1)
    return np.asarray(solution[3])


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of ``[N, 3]`` along each axis, where half of the weight is reached."""
    order = np.argsort(values, axis=0)
    reached = np.cumsum((weights + 1e-3)[order], axis=0)
    middle = (reached < reached[-1] / 2).sum(0)
    return np.asarray(np.take_along_axis(values, np.take_along_axis(order, middle[None], axis=0), axis=0)[0])
