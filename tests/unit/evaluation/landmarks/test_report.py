"""The report of landmarks: everything inside, what results.json says, and nothing that a name could break."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fewshot.dataset import Dataset
from fewshot.evaluation.charts import Mark
from fewshot.evaluation.landmarks import print_summary, write_report
from fewshot.evaluation.landmarks.curves import success_curves
from fewshot.evaluation.landmarks.pictures import make_pictures
from fewshot.evaluation.landmarks.report import methods_of, outcome
from fewshot.evaluation.landmarks.summary import summarise, summarise_all
from fewshot.features import FeatureBank, load_backbone
from tests.unit.evaluation.landmarks.heads import BEADS, write_heads
from tests.unit.evaluation.page import Page

NASTY = "<b>&\"'{{x}}</b>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """An evaluation of two methods on the heads."""
    from fewshot.evaluation.landmarks import evaluate_landmarks

    folder = tmp_path_factory.mktemp("report")
    write_heads(folder / "heads")
    evaluate_landmarks(
        folder / "heads", adapters=["basic"], baselines=["registration"], templates=["ann"],
        backbone=load_backbone("random-tiny", device="cpu"), bank=FeatureBank(folder / "bank"), out=folder / "out",
        command="fewshot evaluate heads",
    )  # fmt: skip
    return folder / "out", Dataset.open(folder / "heads")


@pytest.fixture
def results(made: tuple[Path, Dataset]) -> dict[str, Any]:
    return json.loads((made[0] / "results.json").read_text())


@pytest.fixture
def rewritten(made: tuple[Path, Dataset], tmp_path: Path) -> Any:
    """The page of results that were changed."""

    def write(results: dict[str, Any]) -> Page:
        results["summary"], results["overall"] = summarise(results["rows"]), summarise_all(results["rows"])
        (tmp_path / "results.json").write_text(json.dumps(results))
        return Page(write_report(tmp_path, made[1]))

    return write


def test_the_page_needs_nothing_else(made: tuple[Path, Dataset]) -> None:
    page = Page(made[0] / "report.html")
    assert all(link.startswith("data:image/") for link in page.of("image", "href"))
    assert not page.of("script", "src")
    assert not page.of("link", "href")
    assert "http" not in re.sub(r'"data:[^"]*"', "", page.source)
    assert "fewshot evaluate heads" in page.text


def test_tables_say_what_the_results_say(made: tuple[Path, Dataset], results: dict[str, Any]) -> None:
    page = Page(made[0] / "report.html")
    (table,) = page.tables["overall"]
    assert table[0][0] == "method"
    columns = {name: number for number, name in enumerate(table[0])}
    for row in table[1:]:
        name = row[0].split()[0].removesuffix("baseline")
        of = results["overall"][name]
        assert row[columns["< 10 px"]].startswith(f"{of['hit_10px_mean']:.0%}")
        assert row[columns["found"]] == f"{of['found_mean']:.0%}"
    (crops,) = page.tables["crops"]
    of = results["overall"]["registration"]
    (row,) = [row for row in crops if row[0].startswith("registration")]
    assert row[1].endswith(f"{of['false_detections']}/{of['absent']}")
    (landmarks,) = page.tables["landmarks"]
    assert [row[0] for row in landmarks[1:]] == [*BEADS]
    assert [row[-1] for row in landmarks[1:]] == ["3", "3", "2"]


def test_pictures_show_cases_and_landmarks_with_the_answers_of_all_methods(
    made: tuple[Path, Dataset], results: dict[str, Any]
) -> None:
    pictures = make_pictures(made[1], results, ["registration", "basic"])
    assert set(pictures.landmarks) == {*BEADS}
    assert pictures.left_out == 0
    assert [len(figures) for figures in pictures.cases.values()] == [3, 3, 3]
    assert {of.title for of in pictures.cases["best"]} == {"axial", "coronal", "sagittal"}
    for figures in pictures.landmarks.values():
        for of in figures:
            (dot,) = of.dots["registration"]
            assert 0 < dot.truth[0] < of.width
            assert 0 < dot.truth[1] < of.height
            assert set(of.dots) == {"registration", "basic"}
    axial = next(of for of in pictures.cases["best"] if of.title == "axial")
    (row,) = [
        row for row in results["rows"]
        if (row["case"], row["adapter"], row["view"], row["landmark"]) == (axial.case, "registration", "whole", "nose")
    ]  # fmt: skip
    x, y = row["truth"][0], row["truth"][1]  # RAS: right is at the left edge, anterior at the top
    nose = next(dot for dot in axial.dots["registration"] if dot.title.startswith("nose"))
    assert nose.truth[0] == pytest.approx(axial.width - (x / 2 + 0.5) * axial.width / 28, abs=1)
    assert nose.truth[1] == pytest.approx(axial.height - (y / 2 + 0.5) * axial.height / 26, abs=1)
    assert nose.title == f"nose: {row['error_mm']:.1f} mm"


def test_pictures_beyond_the_budget_are_counted(made: tuple[Path, Dataset], results: dict[str, Any]) -> None:
    pictures = make_pictures(made[1], results, ["registration"], budget=0)
    assert (pictures.landmarks, pictures.left_out) == ({}, 3)


def test_a_landmark_that_was_missed_is_crossed_out(results: dict[str, Any], rewritten: Any) -> None:
    for row in results["rows"]:
        if row["landmark"] == "nose" and row["present"]:
            row |= {"found": False, "point": None, "error_mm": None, "error_px": None, "hit_10px": False}
    page = rewritten(results)
    assert page.source.count('class="cross"') >= 6
    assert "not found" in page.text
    assert "100% missed" in page.text


def test_names_cannot_break_the_page(results: dict[str, Any], rewritten: Any) -> None:
    results["dataset"] = NASTY
    for row in results["rows"]:
        row["landmark"] = row["landmark"].replace("nose", NASTY)
    results["failed"] = {NASTY: NASTY}
    page = rewritten(results)
    assert "<b>" not in page.source.replace("<b>{", "")
    assert NASTY in page.text


def test_pixels_stand_in_where_there_are_no_millimetres(results: dict[str, Any], rewritten: Any) -> None:
    for row in results["rows"]:
        row |= dict.fromkeys(("error_mm", "guess_mm", "success_2mm", "success_4mm", "success_10mm"))
    page = rewritten(results)
    (table,) = page.tables["overall"]
    assert not [header for header in table[0] if "mm" in header]
    assert "mean radial error" in page.text
    assert "pixels off at most" in page.text


def test_without_crops_there_is_no_such_section(results: dict[str, Any], rewritten: Any) -> None:
    results["rows"] = [row for row in results["rows"] if row["view"] == "whole" and row["present"]]
    assert "crops" not in rewritten(results).tables


def test_the_outcome_names_the_leader_and_the_best_of_the_other_kind(results: dict[str, Any]) -> None:
    said = outcome(methods_of(results))
    first, second = said.split(";")
    assert first.startswith("registration finds ")
    assert "of 3 landmarks within 10 pixels on 3 unseen cases, mean radial error" in first
    assert "the best adapter, basic, finds" in second
    assert outcome([]).startswith("Nothing could be measured")


def test_curves_count_what_was_not_found() -> None:
    """Of four landmarks two were found, at 1 and 3 mm: half of them at the end of the axis."""
    chart = success_curves(
        [(Mark("m", "#000", baseline=True), [1.0, 3.0], 4)], title="t", unit="mm", limits=(2, 50)
    )
    assert "m: 50% within 5 mm" in chart
    assert chart.count('stroke-dasharray="2 3"') == 1  # 50 mm lies outside
    assert 'stroke-dasharray="6 4"' in chart
    assert "0% within 1 mm" in success_curves([(Mark("m", "#000"), [], 4)], title="t", unit="mm")


def test_the_terminal_shows_each_landmark_unless_there_are_many(
    results: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from fewshot.console import results as console

    print_summary(results, console)
    said = capsys.readouterr().out
    assert all(name in said for name in [*BEADS, "all landmarks", "< 10 px", "registration"])
    many = [row | {"landmark": f"point {number}"} for row in results["rows"] for number in range(20)]
    results |= {"rows": many, "summary": summarise(many), "overall": summarise_all(many)}
    print_summary(results, console)
    said = capsys.readouterr().out
    assert "point 7" not in said
    assert "The 20 landmarks one by one: in the report." in said
