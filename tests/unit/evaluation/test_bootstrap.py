"""Intervals of means over patients."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.evaluation.bootstrap import mean_interval


def test_two_patients_have_the_three_means_that_there_are() -> None:
    """Resamples of 0 and 1 have means 0, 1/2 and 1, with chances 1/4, 1/2 and 1/4."""
    assert mean_interval([0.0, 1.0]) == [0.0, 1.0]


def test_equal_patients_leave_no_doubt() -> None:
    assert mean_interval([0.7] * 5) == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_patient_has_no_interval(values: list[float]) -> None:
    assert mean_interval(values) is None


def test_many_patients_come_near_the_normal_interval() -> None:
    """Mean +- 1.96 standard errors, within a tenth of its width."""
    values = np.random.default_rng(1).normal(0.8, 0.1, 200)
    error = values.std(ddof=1) / np.sqrt(200)
    found = mean_interval(values.tolist())
    assert found == pytest.approx(
        [values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.4 * error
    )


def test_the_same_values_have_the_same_interval() -> None:
    assert mean_interval([0.1, 0.5, 0.9, 0.4]) == mean_interval([0.1, 0.5, 0.9, 0.4])
