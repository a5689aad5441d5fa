"""Whether predicted probabilities mean what they say."""

from __future__ import annotations

import numpy as np

BINS = 15
"""Equal-width bins of the probability (Guo et al., On Calibration of Modern Neural Networks, 2017)."""

MARGIN = 10
"""Voxels around truth and prediction within which probabilities are compared."""


def expected_calibration_error(probability: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> float:
    """Mean gap between the probability of a label and how often it is there, weighted by voxels.

    Voxels are sorted into bins of equal width by the probability; in each bin the mean probability is compared
    with the share of voxels that the truth gives the label.

    Args:
        probability: of the label, in [0, 1], any shape.
        truth: bool, where the label is, the same shape.
        bins: how many.

    Returns:
        0 (calibrated) to 1.
    """
    values = probability.astype(np.float64).ravel()
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    said = np.bincount(index, weights=values, minlength=bins)
    there = np.bincount(index, weights=truth.ravel(), minlength=bins)
    return float(np.abs(said - there).sum() / values.size)
