"""Rows of single cases and labels, condensed: means, spread over patients and seeds, intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fewshot.evaluation.bootstrap import mean_interval
from fewshot.evaluation.refiners import method_name

Row = Mapping[str, Any]
Values = dict[str, Any]

SCORES = (
    "iou",
    "dice",
    "hd95_mm",
    "surface_mm",
    "distance_mm",
    "distance_px",
    "hit_10px",
    "volume_error",
    "ece",
    "seconds",
)
"""What is averaged; each may be None in a row."""

SLICES = ("false_positive_slices", "slices_without_label")
"""What is summed."""


def method_of(row: Row) -> str:
    """The adapter or baseline of a row, with its refiner."""
    return method_name(row["adapter"], row["refine"])


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """Every score per method and label.

    A case's value is its mean over the seeds, so that every patient counts once; means, standard deviations and
    intervals are over the patients that define the value. Slices are summed over cases and seeds.

    Returns:
        method -> label -> `cases`, `cases_with_label`; of each of `SCORES` `dice_mean`, `dice_sd` (over the cases),
        `dice_ci` (95 % bootstrap interval of the mean) and `dice_seed_sd` (of the seeds' means), None where they are
        not defined; `accuracy_10px`, which is `hit_10px_mean`; `false_positive_slices`, `slices_without_label`.
    """
    return {
        method: {label: _condense(of) for label, of in _grouped(of_method, _label).items()}
        for method, of_method in _grouped(rows, method_of).items()
    }


def summarise_cases(rows: Sequence[Row]) -> dict[str, Values]:
    """Every score per method over all labels: a case's value is the mean over its labels.

    Returns:
        method -> the values of `summarise`.
    """
    return {
        method: _condense(
            [
                {**of_case[0], **_over_labels(of_case)}
                for of_case in _grouped(of_method, lambda row: (row["seed"], row["case"])).values()
            ]
        )
        for method, of_method in _grouped(rows, method_of).items()
    }


def case_means(rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """Method -> case -> the mean of each score over seeds and the labels that define it, slices summed."""
    return {
        method: {case: _over_labels(of_case) for case, of_case in _grouped(of_method, _case).items()}
        for method, of_method in _grouped(rows, method_of).items()
    }


def _condense(rows: Sequence[Row]) -> Values:
    """Values of one label, or of all: at most one row per seed and case."""
    cases, seeds = _grouped(rows, _case), _grouped(rows, lambda row: row["seed"])
    values: Values = {
        "cases": len(cases),
        "cases_with_label": sum(any(row["dice"] is not None for row in of) for of in cases.values()),
    }
    for key in SCORES:
        patients = _means(cases.values(), key)
        of_seeds = _means(seeds.values(), key)
        values[f"{key}_mean"] = _mean(patients)
        values[f"{key}_sd"] = _deviation(patients)
        values[f"{key}_ci"] = mean_interval(patients)
        values[f"{key}_seed_sd"] = _deviation(of_seeds)
    values["accuracy_10px"] = values["hit_10px_mean"]
    return values | {key: int(sum(row[key] for row in rows)) for key in SLICES}


def _over_labels(rows: Sequence[Row]) -> Values:
    return {key: _mean(_known(rows, key)) for key in SCORES} | {
        key: sum(row[key] for row in rows) for key in SLICES
    }


def _means(groups: Iterable[Sequence[Row]], key: str) -> list[float]:
    """The mean of a score in each group that defines it."""
    return [float(np.mean(known)) for rows in groups if (known := _known(rows, key))]


def _grouped(rows: Iterable[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _case(row: Row) -> str:
    return row["case"]


def _label(row: Row) -> str:
    return row["label"]


def _known(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row[key] is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
