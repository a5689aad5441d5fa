"""A random walk on the pixels of slices: what is known in some places spreads until it meets an edge.

The random walker with priors (Grady 2005, "Multilabel random walker image segmentation using prior models") for many
labels at once: probabilities x that solve ``(L + W) x = W p``, with L the Laplacian of the grid whose edges are weak
where grey values differ, p the probabilities known before, and W how much they count at each pixel.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

ITERATIONS = 50
TOLERANCE = 1e-2
"""Of the residual relative to the right side: probabilities are right to about a hundredth."""

FAINTEST = 1e-3
"""Least weight of an edge, so that noise cuts no pixel off."""


def walk(
    channels: np.ndarray,
    prior: np.ndarray,
    weight: np.ndarray,
    *,
    spacing: tuple[float, float, float],
    contrast: float,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """Let probabilities spread along what looks alike.

    Args:
        channels: float32 ``[C, S, rows, cols]``; grey values or features, scaled so that a squared distance of 1
            between neighbours is typical.
        prior: float32 ``[S, rows, cols, K]``, the probabilities known before.
        weight: float32 ``[S, rows, cols]``, above 0: how much the prior counts there. 1 is as much as one neighbour
            that looks the same.
        spacing: millimetres between slices, rows and columns; farther neighbours count less. An infinite distance
            between slices makes each of them stand for itself.
        contrast: how fast an edge weakens with the squared distance of its pixels.
        where: bool ``[S, rows, cols]``; elsewhere the prior stays as it is. Everywhere by default.

    Returns:
        float32 ``[S, rows, cols, K]``; where the prior sums to 1 so does it, but for the solver's tolerance.
    """
    shape = prior.shape[:3]
    free = np.ones(shape, bool) if where is None else where
    result = prior.astype(np.float32)
    if not free.any():
        return result
    number = np.full(shape, -1, np.int32)
    number[free] = np.arange(np.count_nonzero(free))
    size = np.count_nonzero(free)
    degree = np.zeros(size, np.float32)
    known = weight[free][:, None] * prior[free]
    ends: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    values: list[np.ndarray] = []
    nearest = min(spacing)
    for axis in range(3):
        if shape[axis] < 2 or not np.isfinite(spacing[axis]):
            continue
        here, there = _halves(axis)
        either = free[here] | free[there]
        apart = np.zeros(np.count_nonzero(either), np.float32)
        for channel in channels:
            apart += (channel[here][either] - channel[there][either]) ** 2
        strength = (np.exp(-contrast * apart) + FAINTEST) * np.float32((nearest / spacing[axis]) ** 2)
        one, other = number[here][either], number[there][either]
        for mine, theirs, prior_there in ((one, other, prior[there]), (other, one, prior[here])):
            inside = mine >= 0
            degree += np.bincount(mine[inside], strength[inside], size).astype(np.float32)
            fixed = inside & (theirs < 0)  # a neighbour whose probabilities stay is a boundary
            if fixed.any():
                spread = strength[fixed, None] * prior_there[either][fixed]
                for label in range(prior.shape[3]):
                    known[:, label] += np.bincount(mine[fixed], spread[:, label], size)
        both = (one >= 0) & (other >= 0)
        starts += [one[both], other[both]]
        ends += [other[both], one[both]]
        values += [strength[both], strength[both]]
    if starts:
        links = csr_matrix(
            (np.concatenate(values), (np.concatenate(starts), np.concatenate(ends))), shape=(size, size)
        )
    else:
        links = csr_matrix((size, size), dtype=np.float32)
    solved = _solve(links, degree + weight[free], known, result[free])
    result[free] = np.clip(solved, 0, 1, out=solved)
    return result


def _halves(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All pixels but the last, and all but the first, along an axis."""
    here, there = [slice(None)] * 3, [slice(None)] * 3
    here[axis], there[axis] = slice(None, -1), slice(1, None)
    return tuple(here), tuple(there)


def _solve(links: csr_matrix, diagonal: np.ndarray, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Conjugate gradients for all columns at once, preconditioned by the diagonal.

    SciPy's solver takes one column, and multiplies the matrix with each label anew.
    """
    scale = (1 / diagonal)[:, None].astype(np.float32)
    found = start.astype(np.float32)
    residual = (right - (found / scale - links @ found)).astype(np.float32)
    goal = TOLERANCE * np.maximum(np.linalg.norm(right, axis=0), np.float32(1e-6))
    turned = residual * scale
    direction = turned
    old = (residual * turned).sum(axis=0)
    for _ in range(ITERATIONS):
        if np.all(np.linalg.norm(residual, axis=0) <= goal):
            break
        moved = direction / scale - links @ direction
        step = old / np.maximum((direction * moved).sum(axis=0), np.float32(1e-12))
        found = found + step * direction
        residual = residual - step * moved
        turned = residual * scale
        new = (residual * turned).sum(axis=0)
        direction = turned + new / np.maximum(old, np.float32(1e-12)) * direction
        old = new
    return found
