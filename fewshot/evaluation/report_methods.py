"""What the report says of methods: their order of merit, the sentence on top, and the Dice of every case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.baselines import BASELINES
from fewshot.evaluation.summary import method_of

Results = Mapping[str, Any]

COLOURS = (
    "#2b7bd0", "#e07b00", "#0f9d76", "#c2549d", "#c9423c", "#7f5fc4", "#8a8a00", "#1195a8", "#9c6b3f", "#7b8794",
)  # fmt: skip
"""One per method, dark enough on white and light enough on black; shapes tell baselines apart besides."""


@dataclass(frozen=True)
class Method:
    """An adapter or baseline with its refiner, and what it reached.

    Attributes:
        values: its entry of `overall`; empty where it has no row.
        labels: its entry of `summary`.
        total: seconds that a user waits on a new study, mean over the cases; None where not measured.
        fit: seconds to learn from the templates, mean over the seeds.
        found: share of the labels in the truth of which at least one voxel was predicted.
    """

    name: str
    colour: str
    baseline: bool
    values: Mapping[str, Any]
    labels: Mapping[str, Mapping[str, Any]]
    total: float | None
    fit: float | None
    found: float | None

    @property
    def dice(self) -> float | None:
        """Mean Dice over all cases."""
        return self.values.get("dice_mean")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `dice`."""
        return interval(self.values, "dice")


def methods(results: Results) -> list[Method]:
    """All methods, the highest mean Dice first; those without any come last."""
    names = dict.fromkeys([*results["overall"], *results["summary"], *map(method_of, results["rows"])])
    tried = {name.partition("+")[0] for name in names}
    names |= dict.fromkeys(of["adapter"] for of in results["models"] if of["adapter"] not in tried)
    dice = {name: results["overall"].get(name, {}).get("dice_mean") for name in names}
    order = sorted(names, key=lambda name: -1.0 if dice[name] is None else dice[name], reverse=True)
    totals = by_method((method_of(of), of.get("total")) for of in results["timings"])
    fits = by_method((of["adapter"], of.get("seconds")) for of in results["models"])
    found = by_method(
        # only what was found has a distance
        (method_of(row), float(row["distance_px"] is not None))
        for row in results["rows"]
        if row["dice"] is not None
    )
    return [
        Method(
            name=name,
            colour=COLOURS[number % len(COLOURS)],
            baseline=name.partition("+")[0] in BASELINES,
            values=results["overall"].get(name, {}),
            labels=results["summary"].get(name, {}),
            total=totals.get(name),
            fit=fits.get(name.partition("+")[0]),
            found=found.get(name),
        )
        for number, name in enumerate(order)
    ]


def outcome(methods: Sequence[Method]) -> str:
    """One sentence: who leads, with what, and how far the best alternative comes."""
    if not methods or methods[0].dice is None:
        return "No Dice could be computed: no case holds a label that was tested."
    lead = methods[0]
    labels = sum(of.get("dice_mean") is not None for of in lead.labels.values())
    cases = lead.values["cases_with_label"]
    sentence = (
        f"{lead.name} finds {_count(labels, 'label')} with mean Dice {with_interval(lead.values)} "
        f"on {_count(cases, 'unseen case')}"
    )
    others = [method for method in methods[1:] if method.dice is not None]
    # an adapter is for choosing, a baseline for comparing: of interest is the best of the other kind
    other = next((method for method in others if method.baseline != lead.baseline), None)
    if other is not None:
        kind = "baseline" if other.baseline else "adapter"
        return f"{sentence}; the best {kind}, {other.name}, reaches {with_interval(other.values)}."
    if others:
        return f"{sentence}; the next best, {others[0].name}, reaches {with_interval(others[0].values)}."
    return sentence + "."


def case_dice(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> label -> case -> Dice, mean over the seeds; only where the truth holds the label."""
    groups: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        if row["dice"] is not None:
            of_label = groups.setdefault(method_of(row), {}).setdefault(row["label"], {})
            of_label.setdefault(row["case"], []).append(row["dice"])
    return {
        method: {
            label: {case: float(np.mean(of)) for case, of in cases.items()} for label, cases in labels.items()
        }
        for method, labels in groups.items()
    }


def study_dice(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Method -> case -> Dice, mean over labels and seeds: the values of which `overall` is the mean."""
    groups: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        if row["dice"] is not None:
            of_case = groups.setdefault(method_of(row), {}).setdefault(row["case"], {})
            of_case.setdefault(row["seed"], []).append(row["dice"])
    return {
        method: {
            case: float(np.mean([np.mean(of) for of in seeds.values()])) for case, seeds in cases.items()
        }
        for method, cases in groups.items()
    }


def interval(values: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """A score's 95 % interval; None where there is none."""
    ends = values.get(f"{key}_ci")
    return (float(ends[0]), float(ends[1])) if ends and None not in ends else None


def interval_text(values: Mapping[str, Any], key: str = "dice") -> str:
    """A score's interval as text; empty where there is none."""
    ends = interval(values, key)
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""


def with_interval(values: Mapping[str, Any]) -> str:
    """Mean Dice and its interval."""
    return f"{values['dice_mean']:.2f} {interval_text(values)}".strip()


def by_method(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Mean per name of the values that are known."""
    groups: dict[str, list[float]] = {}
    for name, value in pairs:
        if value is not None:
            groups.setdefault(name, []).append(float(value))
    return {name: float(np.mean(of)) for name, of in groups.items()}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
