"""Rows of single landmarks, condensed per method: means over patients, intervals, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fewshot.evaluation.bootstrap import mean_interval
from fewshot.evaluation.landmarks.views import WHOLE

Row = Mapping[str, Any]
Values = dict[str, Any]

SCORES = (
    "error_mm",
    "error_px",
    "guess_mm",
    "hit_10px",
    "success_2mm",
    "success_4mm",
    "success_10mm",
    "found",
    "seconds",
)
"""What is averaged over the whole volumes; each may be None in a row."""

IN_CROPS = ("found", "hit_10px", "error_mm")
"""What is averaged over the landmarks that a crop still holds."""


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """Every score per method and landmark.

    A case's value is its mean over the seeds, so that every patient counts once; means, standard deviations and
    intervals are over the patients that define the value.

    Returns:
        method -> landmark -> `cases` (that hold it); of each of `SCORES` `error_mm_mean`, `error_mm_sd` (over the
        cases), `error_mm_ci` (95 % bootstrap interval of the mean) and `error_mm_seed_sd` (of the seeds' means),
        None where they are not defined; `error_mm_median` and `error_px_median` over all that were found;
        `absent` and `false_detections`: how often it was not in the image, and found all the same; of each of
        `IN_CROPS` `crops_found_mean` and so on, over the cropped volumes that still hold it.
    """
    return {
        method: {name: _condense(of) for name, of in _grouped(of_method, "landmark").items()}
        for method, of_method in _grouped(rows, "adapter").items()
    }


def summarise_all(rows: Sequence[Row]) -> dict[str, Values]:
    """Every score per method over all landmarks: a case's value is the mean over its landmarks and seeds.

    Returns:
        method -> the values of `summarise`.
    """
    return {method: _condense(of) for method, of in _grouped(rows, "adapter").items()}


def _condense(rows: Sequence[Row]) -> Values:
    here = [row for row in rows if row["present"]]
    whole = [row for row in here if row["view"] == WHOLE]
    crops = [row for row in here if row["view"] != WHOLE]
    absent = [row for row in rows if not row["present"]]
    values: Values = {"cases": len(_grouped(whole, "case")), "landmarks": len(whole)}
    for key in SCORES:
        patients = _means(_grouped(whole, "case").values(), key)
        values[f"{key}_mean"] = _over(np.mean, patients)
        values[f"{key}_sd"] = _deviation(patients)
        values[f"{key}_ci"] = mean_interval(patients)
        values[f"{key}_seed_sd"] = _deviation(_means(_grouped(whole, "seed").values(), key))
    for key in ("error_mm", "error_px"):
        values[f"{key}_median"] = _over(np.median, _known(whole, key))
    values["absent"] = len(absent)
    values["false_detections"] = sum(row["found"] for row in absent)
    values["in_crops"] = len(crops)
    for key in IN_CROPS:
        values[f"crops_{key}_mean"] = _over(np.mean, _means(_grouped(crops, "case").values(), key))
    return values


def _means(groups: Iterable[Sequence[Row]], key: str) -> list[float]:
    """The mean of a score in each group that defines it."""
    return [float(np.mean(known)) for rows in groups if (known := _known(rows, key))]


def _grouped(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _known(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row[key] is not None]


def _over(how: Callable[[Sequence[float]], Any], values: Sequence[float]) -> float | None:
    return float(how(values)) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
