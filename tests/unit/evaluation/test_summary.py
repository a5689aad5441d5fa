"""What summaries and tables say about rows, against numbers worked out by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fewshot.evaluation.bootstrap import mean_interval
from fewshot.evaluation.summary import case_means, summarise, summarise_cases
from fewshot.evaluation.table import HEADERS, print_summary, summary_table


def row(case: str, label: str, dice: float | None, **values: Any) -> dict[str, Any]:
    """One row of results.json."""
    absent = dice is None
    return {
        "seed": 0,
        "case": case,
        "adapter": "basic",
        "refine": "none",
        "label": label,
        "iou": None if absent else dice / 2,
        "dice": dice,
        "hd95_mm": None if absent else 8.0,
        "surface_mm": None if absent else 1.5,
        "distance_mm": None if absent else 2.0,
        "distance_px": None if absent else 1.0,
        "hit_10px": None if absent else True,
        "false_positive_slices": 1,
        "slices_without_label": 5,
        "truth_ml": 0.0 if absent else 1.0,
        "predicted_ml": 1.0,
        "volume_error": None if absent else 0.0,
        "ece": None if absent else 0.0625,
        "seconds": 3.0,
    } | values


MISSED = dict.fromkeys(("hd95_mm", "surface_mm", "distance_mm", "distance_px")) | {"hit_10px": False}

ROWS = [
    row("one", "a", 0.8),
    row("one", "b", 0.4, **MISSED),
    row("two", "a", 0.6),
    row("two", "b", None),
]


def results(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What tables need of results.json."""
    return {
        "dataset": "set",
        "shots": 1,
        "templates": ["t"],
        "seeds": [0],
        "backbone": "tiny",
        "rows": rows,
        "summary": summarise(rows),
        "overall": summarise_cases(rows),
    } | changes


def test_a_label_is_averaged_over_the_cases_that_hold_it() -> None:
    of_a, of_b = summarise(ROWS)["basic"]["a"], summarise(ROWS)["basic"]["b"]
    assert of_a["dice_mean"] == pytest.approx(0.7)
    assert of_a["dice_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert of_a["dice_ci"] == mean_interval([0.8, 0.6])
    assert of_a["dice_seed_sd"] is None
    assert (of_b["cases"], of_b["cases_with_label"]) == (2, 1)
    assert of_b["dice_mean"] == pytest.approx(0.4)
    assert of_b["dice_sd"] is of_b["dice_ci"] is None


def test_misses_count_for_accuracy_but_have_no_distance() -> None:
    of_b = summarise(ROWS)["basic"]["b"]
    assert of_b["accuracy_10px"] == of_b["hit_10px_mean"] == 0.0
    assert of_b["distance_mm_mean"] is of_b["hd95_mm_mean"] is of_b["surface_mm_mean"] is None


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


def test_over_seeds_each_patient_counts_once() -> None:
    """One patient in two seeds (0.8 and 0.4), another in one (0.2): a mean of 0.6 and 0.2, not of three numbers."""
    rows = [row("one", "a", 0.8), row("one", "a", 0.4, seed=1), row("two", "a", 0.2, seed=1)]
    for values in (summarise(rows)["basic"]["a"], summarise_cases(rows)["basic"]):
        assert (values["cases"], values["dice_mean"]) == (2, pytest.approx(0.4))
        assert values["dice_sd"] == pytest.approx(0.2828, abs=1e-4)
        assert values["dice_ci"] == pytest.approx(mean_interval([0.6, 0.2]))
        # the seeds' means are 0.8 and 0.3
        assert values["dice_seed_sd"] == pytest.approx(0.5 / 2**0.5)
        assert values["slices_without_label"] == 15


def test_a_refiner_makes_another_method() -> None:
    rows = [row("one", "a", 0.8), row("one", "a", 0.9, refine="walker")]
    assert {name: of["a"]["dice_mean"] for name, of in summarise(rows).items()} == {
        "basic": 0.8,
        "basic+walker": 0.9,
    }


def test_markdown_has_one_line_per_label_and_method_and_escapes_bars() -> None:
    lines = summary_table(results([*ROWS, row("one", "a|b", 0.5)])).splitlines()
    assert len(lines) == 2 + 4
    assert lines[0].split(" | ")[1] == HEADERS[1]
    assert lines[2].startswith("| all labels | basic | 2 |")
    assert lines[3] == "| a | basic | 2 | 0.70 [0.60, 0.80] | 0.35 | 8.0 | 1.5 | 100% | 2/10 | 0.062 | 3.00 |"
    assert lines[4] == "| b | basic | 1 | 0.40 | 0.20 | – | – | 0% | 2/10 | 0.062 | 3.00 |"
    assert lines[5].startswith(r"| a\|b | basic | 1 | 0.50 |")


def test_one_label_needs_no_line_for_all() -> None:
    assert "all labels" not in summary_table(results([row("one", "a", 0.5)]))


def printed(found: dict[str, Any]) -> str:
    output = io.StringIO()
    print_summary(found, Console(file=output, width=100))
    return output.getvalue()


def test_the_terminal_shows_what_was_left_out() -> None:
    runs = [
        {"seed": 0, "labels_without_template": ["c", "d"]},
        {"seed": 3, "labels_without_template": ["c"]},
    ]
    text = printed(
        results(
            ROWS,
            runs=runs,
            models=[{"adapter": "basic", "note": "its weights are random"}] * 2,
            failed={"three": "three.nii.gz is [damaged]."},
        )
    )
    assert "0.70 [0.60, 0.80]" in text
    assert "Not in any template, so not tested: c." in text
    assert "Not in the templates of seed 0, so not tested there: d." in text
    assert text.count("basic: its weights are random") == 1
    assert "three.nii.gz is [damaged]." in text


def test_many_methods_and_large_numbers_fit_100_columns() -> None:
    rows = [
        row(case, label, 0.123, adapter=method, refine=refine, hd95_mm=123.4, slices_without_label=99999, seconds=999.25)
        for case in ("one", "two")
        for label in ("kidney_left", "gallbladder")
        for method in ("local-prototypes", "contrastive", "registration")
        for refine in ("none", "walker")
    ]  # fmt: skip
    lines = printed(results(rows, seeds=[0, 1])).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if "Dice" in line) :]
    assert max(map(len, table)) <= 100
    assert any(line.split()[:1] == ["local-prototypes+walker"] for line in table)
    assert sum("0.12 [0.12, 0.12]" in line for line in table) == 3 * 6
    order = [
        i for i, line in enumerate(table) for name in ("all labels", "kidney_left") if line.startswith(name)
    ]
    assert order == sorted(order)
    assert table[order[0]].startswith("all labels")
