"""What the demo found out, as a table and as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from fewshot.evaluation.metrics import LabelScores


@dataclass(frozen=True)
class Row:
    """One label of one study, found with one adapter.

    Attributes:
        seconds: until the answer was there, for all labels of the study together, features in the bank.
        first_seconds: the same for the study's first request, which computed the features.
    """

    case: str
    adapter: str
    label: str
    scores: LabelScores
    seconds: float
    first_seconds: float


def mean_dice(rows: Sequence[Row], *, adapter: str, label: str | None = None) -> float | None:
    """Mean Dice over the studies (and labels), None where there is nothing to average."""
    values = [
        row.scores.dice
        for row in rows
        if row.adapter == adapter and label in (None, row.label) and row.scores.dice is not None
    ]
    return fmean(values) if values else None


def mean_seconds(rows: Sequence[Row], *, adapter: str) -> float | None:
    """Mean seconds per study, features in the bank."""
    per_case = {row.case: row.seconds for row in rows if row.adapter == adapter}
    return fmean(per_case.values()) if per_case else None


def mean_first_seconds(rows: Sequence[Row]) -> float:
    """Mean seconds of a study's first request."""
    return fmean({row.case: row.first_seconds for row in rows}.values())


def dice_table(rows: Sequence[Row]) -> Table:
    """Dice per label (one line each) and adapter (one column each), with the mean and the seconds below."""
    adapters = list(dict.fromkeys(row.adapter for row in rows))
    table = Table()
    table.add_column("label")
    for adapter in adapters:
        table.add_column(adapter, justify="right")
    for label in dict.fromkeys(row.label for row in rows):
        table.add_row(
            label, *(_number(mean_dice(rows, adapter=adapter, label=label)) for adapter in adapters)
        )
    table.add_section()
    table.add_row("mean", *(_number(mean_dice(rows, adapter=adapter)) for adapter in adapters), style="bold")
    table.add_row(
        "seconds per study", *(_number(mean_seconds(rows, adapter=adapter)) for adapter in adapters)
    )
    return table


def results(rows: Sequence[Row], *, dataset: str, templates: Sequence[str], **more: Any) -> dict[str, Any]:
    """The same numbers for a program, in the form that ``fewshot evaluate`` writes."""
    summary: dict[str, dict[str, Any]] = {}
    for adapter in dict.fromkeys(row.adapter for row in rows):
        summary[adapter] = {
            label: {"dice": mean_dice(rows, adapter=adapter, label=label)}
            for label in dict.fromkeys(row.label for row in rows)
        }
        summary[adapter]["mean"] = {
            "dice": mean_dice(rows, adapter=adapter),
            "seconds": mean_seconds(rows, adapter=adapter),
        }
    return {
        "dataset": dataset,
        "shots": len(templates),
        "templates": list(templates),
        **more,
        "rows": [
            {"case": row.case, "adapter": row.adapter, "refine": None, "label": row.label}
            | asdict(row.scores)
            | {"seconds": round(row.seconds, 3), "first_seconds": round(row.first_seconds, 3)}
            for row in rows
        ],
        "summary": summary,
    }


def write_results(path: Path, found: dict[str, Any]) -> None:
    """Write results as JSON."""
    path.write_text(json.dumps(found, indent=2) + "\n")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
