"""How far a mean over patients may be off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
LEVEL = 95.0
"""Percent of the resampled means that an interval holds."""

SEED = 0


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """95 % percentile bootstrap interval of the mean: patients are drawn anew, with replacement.

    The same number of patients is resampled in the same way every time, so that the same values always have the
    same interval.

    Args:
        values: one per patient.

    Returns:
        Lower and upper end; None for fewer than two patients, whose spread says nothing.
    """
    if len(values) < 2:
        return None
    means = np.asarray(values, dtype=np.float64)[_draws(len(values))].mean(axis=1)
    low, high = np.percentile(means, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return [float(low), float(high)]


@lru_cache(maxsize=4)
def _draws(count: int) -> np.ndarray:
    """Which patients each resample holds, [RESAMPLES, count]."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
