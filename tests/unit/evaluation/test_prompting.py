"""Prompting strategies compared: numbers by hand, the report's section and the table for the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.dataset import Dataset
from fewshot.evaluation import prompts_table
from fewshot.evaluation.prompting import compare, remarks
from fewshot.evaluation.report import write_report
from fewshot.evaluation.summary import summarise, summarise_cases
from tests.unit.evaluation.made_results import PROMPTED, write_results
from tests.unit.evaluation.page import Page
from tests.unit.evaluation.test_summary import row

Results = dict[str, Any]


def made_by_hand(iou: dict[tuple[str, str], list[float | None]]) -> Results:
    """Results of (adapter, refinement) -> IoU of the cases a, b, c."""
    rows = [
        row(case, "liver", value) | {"iou": value, "adapter": adapter, "refine": refine}
        for (adapter, refine), values in iou.items()
        for case, value in zip("abc", values, strict=True)
    ]
    return {"rows": rows, "summary": summarise(rows), "overall": summarise_cases(rows), "timings": []}


def test_the_gain_is_over_the_cases_that_both_predicted() -> None:
    results = made_by_hand(
        {("basic", "none"): [0.5, 0.6, 0.7], ("basic", "sam:box"): [0.6, 0.4, None]},
    )
    plain, box = compare(results)["basic"]
    assert (plain.refine, plain.method, plain.gain, plain.gain_ci) == ("none", "basic", None, None)
    assert (box.refine, box.method) == ("sam:box", "basic+sam:box")
    assert box.values["iou_mean"] == pytest.approx(0.5)
    assert box.gain == pytest.approx((0.1 - 0.2) / 2)
    assert box.gain_ci == pytest.approx([-0.2, 0.1])


def test_strategies_without_the_unrefined_prediction_have_no_gain() -> None:
    results = made_by_hand({("basic", "sam:box"): [0.5] * 3, ("basic", "sam:random"): [0.6] * 3})
    assert [(of.refine, of.gain) for of in compare(results)["basic"]] == [
        ("sam:box", None),
        ("sam:random", None),
    ]


@pytest.mark.parametrize(
    "refinements", [["none"], ["none", "walker"], ["sam:box"]], ids=["plain", "no SAM", "alone"]
)
def test_where_there_is_nothing_to_compare_there_is_no_table(refinements: list[str]) -> None:
    results = made_by_hand({("basic", name): [0.5] * 3 for name in refinements})
    assert compare(results) == {}
    assert prompts_table(results) == ""


def test_the_table_for_the_docs() -> None:
    results = made_by_hand(
        {
            ("basic", "sam:box"): [0.4] * 3,
            ("basic", "sam2"): [0.75] * 3,
            ("basic", "none"): [0.5] * 3,
            ("unet", "none"): [0.3] * 3,
        }
    )
    results["timings"] = [
        {"adapter": "basic", "refine": "sam:box", "refinement": {"masks": masks, "taken": 2}}
        for masks in (3, 5)
    ] + [{"adapter": "basic", "refine": "none", "refinement": None}]
    assert prompts_table(results).splitlines() == [
        "| method | refinement | IoU [95 %] | against none [95 %] | Dice [95 %] | masks taken |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| basic | none | 0.50 [0.50, 0.50] | – | 0.50 [0.50, 0.50] | – |",
        "| basic | sam:box | 0.40 [0.40, 0.40] | −0.10 [−0.10, −0.10] | 0.40 [0.40, 0.40] | 50% |",
        "| basic | sam2 | 0.75 [0.75, 0.75] | +0.25 [+0.25, +0.25] | 0.75 [0.75, 0.75] | – |",
    ]


def test_remarks_tell_what_holds_for_every_case_and_masks_seldom_taken() -> None:
    def timing(masks: int, taken: int, *notes: str) -> dict[str, Any]:
        record = {"masks": masks, "taken": taken, "notes": list(notes)}
        return {"adapter": "basic", "refine": "sam:box", "refinement": record}

    results = {"timings": [timing(4, 1, "random weights", "1 of 4"), timing(6, 3, "random weights")]}
    assert remarks(results) == [
        "sam:box: random weights.",
        "basic+sam:box: only 4 of 10 masks were taken, elsewhere predictions are unrefined.",
    ]
    assert remarks({"timings": [timing(4, 3), {"refine": "none", "adapter": "x", "refinement": None}]}) == []
    assert remarks({}) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    return write_results(tmp_path_factory.mktemp("made"), cases=3, methods=PROMPTED)


def test_the_report_compares_strategies(made: tuple[Path, Dataset]) -> None:
    page = Page(write_report(*made))
    results = json.loads((made[0] / "results.json").read_text())
    auto, unet = page.tables["prompting"]
    assert auto[0] == ["auto", "IoU", "against none", "Dice", "masks taken"]
    assert [line[0] for line in auto[1:]] == ["none", "walker", "sam:random", "sam:box"]
    assert [line[0] for line in unet[1:]] == ["none", "sam:random"]
    for line in auto[1:]:
        name = "auto" if line[0] == "none" else f"auto+{line[0]}"
        assert line[1].split(" ")[0] == f"{results['overall'][name]['iou_mean']:.2f}"
    assert [line[4] for line in auto[1:]] == ["–", "–", "85%", "25%"]
    assert auto[1][2] == "–"
    assert auto[4][2].startswith("−")
    best = {
        line[0] for line in auto[1:] if line[1].split(" ")[0] == max(x[1] for x in auto[1:]).split(" ")[0]
    }
    assert best == {"sam:random"}
    titles = [title for title in page.of("td", "title") if title.startswith("sam:random: ")]
    assert titles, "exact values to hover over"
    drawn = [text for text in page.said("title") if text.startswith("sam:box: ")]
    assert len(drawn) == 1, "the chart names every strategy"
    (warning,) = [text for text in page.said("warn") if "auto+sam:box" in text]
    assert "30 of 120 masks were taken" in warning
    files = {path.name for path in (made[0] / "seed-0" / "predictions").iterdir()}
    assert "auto+sam-box" in files
    assert page.source.count("no prediction") == 0, "pictures find the files of every strategy"
