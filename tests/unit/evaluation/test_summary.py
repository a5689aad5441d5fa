"""What a table says about rows, against numbers worked out by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fewshot.evaluation.summary import (
    HEADERS,
    case_means,
    print_summary,
    summarise,
    summarise_cases,
    summary_table,
)


def row(case: str, label: str, dice: float | None, **values: Any) -> dict[str, Any]:
    """One row of results.json."""
    absent = dice is None
    return {
        "case": case,
        "adapter": "basic",
        "refine": "none",
        "label": label,
        "iou": None if absent else dice / 2,
        "dice": dice,
        "distance_mm": None if absent else 2.0,
        "distance_px": None if absent else 1.0,
        "hit_10px": None if absent else True,
        "false_positive_slices": 1,
        "slices_without_label": 5,
        "truth_ml": 0.0 if absent else 1.0,
        "predicted_ml": 1.0,
        "seconds": 3.0,
    } | values


ROWS = [
    row("one", "a", 0.8),
    row("one", "b", 0.4, distance_mm=None, distance_px=None, hit_10px=False),
    row("two", "a", 0.6),
    row("two", "b", None),
]
RESULTS = {
    "dataset": "set",
    "shots": 1,
    "templates": ["t"],
    "backbone": "tiny",
    "rows": ROWS,
    "summary": summarise(ROWS),
}


def test_a_label_is_averaged_over_the_cases_that_hold_it() -> None:
    of_a, of_b = summarise(ROWS)["basic"]["a"], summarise(ROWS)["basic"]["b"]
    assert of_a["dice_mean"] == pytest.approx(0.7)
    assert of_a["dice_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert (of_b["cases"], of_b["cases_with_label"]) == (2, 1)
    assert of_b["dice_mean"] == pytest.approx(0.4)
    assert of_b["dice_sd"] is None


def test_misses_count_for_accuracy_but_have_no_distance() -> None:
    of_b = summarise(ROWS)["basic"]["b"]
    assert of_b["accuracy_10px"] == 0.0
    assert of_b["distance_mm_mean"] is None


def test_false_positive_slices_are_counted_where_the_truth_has_no_label_at_all() -> None:
    of_b = summarise(ROWS)["basic"]["b"]
    assert (of_b["false_positive_slices"], of_b["slices_without_label"]) == (2, 10)


def test_over_all_labels_each_case_counts_once() -> None:
    assert case_means(ROWS)["basic"]["one"]["dice"] == pytest.approx(0.6)
    assert case_means(ROWS)["basic"]["two"]["dice"] == pytest.approx(0.6)
    overall = summarise_cases(ROWS)["basic"]
    assert (overall["cases"], overall["dice_mean"], overall["dice_sd"]) == (
        2,
        pytest.approx(0.6),
        pytest.approx(0),
    )
    assert overall["seconds_mean"] == pytest.approx(3.0)
    assert overall["accuracy_10px"] == pytest.approx(0.75)


def test_markdown_has_one_line_per_label_and_adapter_and_escapes_bars() -> None:
    rows = [*ROWS, row("one", "a|b", 0.5)]
    lines = summary_table(RESULTS | {"rows": rows, "summary": summarise(rows)}).splitlines()
    assert len(lines) == 2 + 4
    assert lines[0].split(" | ")[1] == HEADERS[1]
    assert lines[2].startswith("| all labels | basic | 2 |")
    assert lines[3].startswith(
        "| a | basic | 2 | 0.70 ± 0.14 | 0.35 ± 0.07 | 2.0 ± 0.0 | 100% | 2/10 | 3.00 |"
    )
    assert lines[5].startswith(r"| a\|b | basic | 1 | 0.50 |")


def test_one_label_needs_no_line_for_all() -> None:
    rows = [row("one", "a", 0.5)]
    assert "all labels" not in summary_table(RESULTS | {"rows": rows, "summary": summarise(rows)})


def test_the_terminal_shows_what_was_left_out() -> None:
    output = io.StringIO()
    results = RESULTS | {"labels_without_template": ["c"], "failed": {"three": "three.nii.gz is [damaged]."}}
    print_summary(results, Console(file=output, width=100))
    text = output.getvalue()
    assert "0.70 ± 0.14" in text
    assert "not tested: c." in text
    assert "three.nii.gz is [damaged]." in text
