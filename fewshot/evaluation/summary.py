"""Rows of single cases and labels, condensed to one line per adapter and label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]

ALL = "all labels"
"""How tables call the mean over the labels."""

HEADERS = ("label", "adapter", "cases", "Dice", "IoU", "distance, mm", "< 10 px", "false slices", "time, s")


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Mean and standard deviation over the cases, per adapter and label.

    `dice`, `iou` and `hit_10px` are over the cases whose truth holds the label, distances over those where it
    was found as well; slices are summed over all cases.

    Returns:
        adapter -> label -> `cases`, `cases_with_label`, `dice_mean`, `dice_sd` and so for `iou`, `distance_mm` and
        `distance_px`, `accuracy_10px`, `false_positive_slices`, `slices_without_label`, `seconds_mean`; None
        where no case defines the value.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["adapter"], {}).setdefault(row["label"], []).append(row)
    return {
        adapter: {label: _condense(of_label) for label, of_label in labels.items()}
        for adapter, labels in groups.items()
    }


def summarise_cases(rows: Sequence[Row]) -> dict[str, dict[str, float | int | None]]:
    """Per adapter over all labels: each case counts once, with the mean over its labels.

    Returns:
        adapter -> the values of `summarise`.
    """
    return {adapter: _condense(cases.values()) for adapter, cases in case_means(rows).items()}


def case_means(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """Adapter -> case -> the mean of each score over the labels that define it, slices summed."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["adapter"], {}).setdefault(row["case"], []).append(row)
    return {
        adapter: {case: _over_labels(of) for case, of in cases.items()} for adapter, cases in groups.items()
    }


def table_lines(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The summary as text, one line per label and adapter under `HEADERS`, all labels first."""
    labels: dict[str, dict[str, Any]] = {}
    if len({label for of in results["summary"].values() for label in of}) > 1:
        labels[ALL] = summarise_cases(results["rows"])
    for adapter, of in results["summary"].items():
        for label, values in of.items():
            labels.setdefault(label, {})[adapter] = values
    return [
        (label, adapter, *score_cells(values))
        for label, of in labels.items()
        for adapter, values in of.items()
    ]


def score_cells(values: Row) -> tuple[str, ...]:
    """A summary's values as text, under the last of `HEADERS`."""
    hits, seconds = values["accuracy_10px"], values["seconds_mean"]
    return (
        str(values["cases_with_label"]),
        spread(values, "dice", 2),
        spread(values, "iou", 2),
        spread(values, "distance_mm", 1),
        "–" if hits is None else f"{hits:.0%}",
        f"{values['false_positive_slices']}/{values['slices_without_label']}",
        "–" if seconds is None else f"{seconds:.2f}",
    )


def spread(values: Row, key: str, digits: int) -> str:
    """Mean ± standard deviation of a summary's value, "–" where it has none."""
    mean, sd = values[f"{key}_mean"], values[f"{key}_sd"]
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def summary_table(results: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, as docs/results.md shows it."""
    lines = [HEADERS, ("---",) * 2 + ("---:",) * (len(HEADERS) - 2), *table_lines(results)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def print_summary(results: Mapping[str, Any], console: Console) -> None:
    """Print the summary, the labels that could not be tested and the cases that failed."""
    from rich.markup import escape
    from rich.table import Table

    shots = f"{results['shots']} template{'s' * (results['shots'] != 1)} ({', '.join(results['templates'])})"
    adapters = ", ".join(results["summary"])
    console.print(escape(f"{results['dataset']}: {shots}, backbone {results['backbone']}, {adapters}"))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")
    for header in HEADERS[2:]:
        table.add_column("\n".join(header.rsplit(" ", 1)), justify="right", vertical="bottom", no_wrap=True)
    last = None
    for label, adapter, *cells in table_lines(results):
        if len(results["summary"]) == 1:
            table.add_row(escape(label), *cells)
            continue
        if label != last:
            table.add_row(f"[bold]{escape(label)}")
        table.add_row(f"  {escape(adapter)}", *cells)
        last = label
    console.print(table)
    for notice in notices(results):
        console.print(escape(notice), style="yellow")


def notices(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers must know: untested labels and failed cases."""
    untested = results.get("labels_without_template") or []
    found = [f"Not in any template, so not tested: {', '.join(untested)}."] if untested else []
    return found + [f"{case} failed: {reason}" for case, reason in (results.get("failed") or {}).items()]


def _over_labels(rows: Sequence[Row]) -> dict[str, Any]:
    scores = ("dice", "iou", "distance_mm", "distance_px", "hit_10px", "seconds")
    slices = ("false_positive_slices", "slices_without_label")
    return {key: _mean(_known(rows, key)) for key in scores} | {
        key: sum(row[key] for row in rows) for key in slices
    }


def _condense(rows: Iterable[Row]) -> dict[str, float | int | None]:
    rows = list(rows)
    values: dict[str, float | int | None] = {
        "cases": len(rows),
        "cases_with_label": sum(row["dice"] is not None for row in rows),
    }
    for key in ("dice", "iou", "distance_mm", "distance_px"):
        known = _known(rows, key)
        values[f"{key}_mean"] = _mean(known)
        values[f"{key}_sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    values["accuracy_10px"] = _mean(_known(rows, "hit_10px"))
    for key in ("false_positive_slices", "slices_without_label"):
        values[key] = int(sum(row[key] for row in rows))
    values["seconds_mean"] = _mean(_known(rows, "seconds"))
    return values


def _known(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row[key] is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
