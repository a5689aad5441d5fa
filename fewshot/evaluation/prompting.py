"""Refinements of the same predictions compared: which prompts serve best (paper, figure 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.evaluation.bootstrap import mean_interval
from fewshot.evaluation.refiners import in_order, method_name
from fewshot.evaluation.summary import Row, Values, method_of
from fewshot.refine import UNREFINED

Results = Mapping[str, Any]

PROMPTED = ("sam", "sam2")
"""Refiners whose comparison is worth a table of its own."""

SELDOM = 0.5
"""A share of masks taken below this is worth a remark."""


@dataclass(frozen=True)
class Outcome:
    """What a refinement made of the predictions of one adapter or baseline.

    Attributes:
        refine: ``none``, a refiner or ``REFINER:STRATEGY``.
        method: as in the summary.
        values: its entry of ``overall``.
        gain: mean over the cases of its IoU minus that of the unrefined prediction; None for ``none`` and without it.
        gain_ci: 95 % bootstrap interval of the gain.
        masks: how many masks were made, and how many of them taken; None where it does not tell.
    """

    refine: str
    method: str
    values: Values
    gain: float | None
    gain_ci: Sequence[float] | None
    masks: tuple[int, int] | None


def compare(results: Results) -> dict[str, list[Outcome]]:
    """Adapter or baseline -> its refinements, where there are two of them (``none`` counts) and SAM is among them."""
    found: dict[str, list[str]] = {}
    for row in results["rows"]:
        known = found.setdefault(row["adapter"], [])
        if row["refine"] not in known:
            known.append(row["refine"])
    gains, masks = _gains(results["rows"]), _masks(results)
    return {
        adapter: [
            _outcome(results["overall"][name], adapter, refine, gains.get(name, []), masks.get(name))
            for refine in in_order(names)
            for name in [method_name(adapter, refine)]
        ]
        for adapter, names in found.items()
        if len(names) > 1 and any(name.partition(":")[0] in PROMPTED for name in names)
    }


def remarks(results: Results) -> list[str]:
    """What a reader of refined results must know: what a refinement noted on every case, and masks seldom taken."""
    notes: dict[str, set[str]] = {}
    for timing in results.get("timings") or []:
        if timing.get("refinement") is not None:
            of_case = set(timing["refinement"].get("notes", ()))
            notes[timing["refine"]] = notes.get(timing["refine"], of_case) & of_case
    found = [f"{refine}: {note}." for refine in in_order(notes) for note in sorted(notes[refine])]
    for method, (made, taken) in _masks(results).items():
        if taken < SELDOM * made:
            found.append(
                f"{method}: only {taken} of {made} masks were taken, elsewhere predictions are unrefined."
            )
    return found


def _outcome(
    values: Values, adapter: str, refine: str, gains: Sequence[float], masks: tuple[int, int] | None
) -> Outcome:
    return Outcome(
        refine=refine,
        method=method_name(adapter, refine),
        values=values,
        gain=float(np.mean(gains)) if gains else None,
        gain_ci=mean_interval(gains),
        masks=masks,
    )


def _gains(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Method -> for each case that both predicted, IoU minus that of the unrefined prediction, mean over its rows."""
    before = {_key(row): row["iou"] for row in rows if row["refine"] == UNREFINED}
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        reference = before.get(_key(row))
        if row["refine"] != UNREFINED and row["iou"] is not None and reference is not None:
            of_method = found.setdefault(method_of(row), {})
            of_method.setdefault(row["case"], []).append(row["iou"] - reference)
    return {method: [float(np.mean(of)) for of in cases.values()] for method, cases in found.items()}


def _key(row: Row) -> tuple[Any, ...]:
    return row["adapter"], row["seed"], row["case"], row["label"]


def _masks(results: Results) -> dict[str, tuple[int, int]]:
    """Method -> masks made and masks taken over all cases and seeds."""
    counts: dict[str, tuple[int, int]] = {}
    for timing in results.get("timings") or []:
        record = timing.get("refinement") or {}
        if "masks" in record and "taken" in record:
            made, taken = counts.get(method_of(timing), (0, 0))
            counts[method_of(timing)] = made + record["masks"], taken + record["taken"]
    return counts
