"""The report holds everything inside, says what results.json says, and nothing that a name could break."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot.dataset import Dataset
from fewshot.evaluation import report_pictures
from fewshot.evaluation.report import write_report
from fewshot.evaluation.report_confusion import heat_map
from fewshot.evaluation.report_pictures import dice_by_label, extremes, label_order
from fewshot.evaluation.store import prediction_path
from fewshot.evaluation.summary import summarise, summarise_cases
from tests.unit.evaluation.made_results import LABELS, METHODS, save, write_results
from tests.unit.evaluation.page import Page

Results = dict[str, Any]
NASTY = "<b>&\"'{{x}}</b>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    return write_results(tmp_path_factory.mktemp("made"), cases=4)


@pytest.fixture(scope="module")
def results(made: tuple[Path, Dataset]) -> Results:
    return json.loads((made[0] / "results.json").read_text())


@pytest.fixture(scope="module")
def page(made: tuple[Path, Dataset]) -> Page:
    return Page(write_report(*made))


@pytest.fixture
def changed(
    made: tuple[Path, Dataset], results: Results, tmp_path: Path
) -> Callable[[Callable[[Results], None]], Page]:
    """The report of results that a function changed; without pictures, which the tests of pictures draw."""

    def write(change: Callable[[Results], None]) -> Page:
        other = copy.deepcopy(results)
        change(other)
        other["summary"], other["overall"] = summarise(other["rows"]), summarise_cases(other["rows"])
        save(tmp_path, other)
        return Page(write_report(tmp_path, made[1]))

    return write


def test_the_head_says_who_leads_and_what_to_know(page: Page, results: Results) -> None:
    auto, baseline = (results["overall"][name] for name in ("auto", "registration"))
    low, high = auto["dice_ci"]
    (sentence,) = page.said("outcome")
    assert sentence.startswith(
        f"auto finds 4 labels with mean Dice {auto['dice_mean']:.2f} [{low:.2f}, {high:.2f}] on 4 unseen cases"
    )
    assert f"the best baseline, registration, reaches {baseline['dice_mean']:.2f}" in sentence
    warnings = " ".join(page.said("warn"))
    assert "spine" in warnings
    assert "phantom_99 failed: its label map" in warnings
    assert "unet: its weights are random" in warnings
    assert "random-tiny" in page.said("dd")


def test_the_overall_table_has_the_numbers_of_the_results(page: Page, results: Results) -> None:
    header, *rows = page.tables["overall"][0]
    assert header[:4] == ["method", "Dice", "IoU", "found"]
    assert [row[0].split(" ")[0] for row in rows] == list(METHODS)  # the best first
    for row in rows:
        method = row[0].split(" ")[0]
        values = results["overall"][method]
        cells = dict(zip(header, row, strict=True))
        low, high = values["dice_ci"]
        assert cells["Dice"] == f"{values['dice_mean']:.2f} [{low:.2f}, {high:.2f}]"
        assert cells["IoU"] == f"{values['iou_mean']:.2f}"
        assert cells["HD95, mm"] == f"{values['hd95_mm_mean']:.1f}"
        assert cells["surface, mm"] == f"{values['surface_mm_mean']:.1f}"
        assert cells["< 10 px"] == f"{values['hit_10px_mean']:.0%}"
        assert cells["ECE"] == f"{values['ece_mean']:.3f}"
        assert cells["false slices"].endswith(
            f" {values['false_positive_slices']}/{values['slices_without_label']}"
        )
        assert cells["volume error"] == f"{values['volume_error_mean']:+.0%}".replace("-", "−")
        waited = [
            of["total"]
            for of in results["timings"]
            if method in (of["adapter"], f"{of['adapter']}+{of['refine']}")
        ]
        assert float(cells["s per study"]) == pytest.approx(sum(waited) / len(waited), rel=0.05)
        fitted = [of["seconds"] for of in results["models"] if of["adapter"] == method.partition("+")[0]]
        assert float(cells["s to fit"]) == pytest.approx(sum(fitted) / len(fitted), rel=0.05)


def test_the_best_of_a_column_is_marked(page: Page, results: Results) -> None:
    marked = [
        title.partition(":")[0] for title in re.findall(r'<td class="best" title="([^"]+)"', page.source)
    ]
    assert marked[0] == max(results["overall"], key=lambda name: results["overall"][name]["dice_mean"])


def test_where_all_reach_the_same_none_is_the_best(changed: Callable) -> None:
    def change(results: Results) -> None:
        for row in results["rows"]:
            row["dice"] = None if row["dice"] is None else 0.5001

    found = changed(change)
    assert {cell.split(" ")[0] for row in found.tables["labels"][0][1:] for cell in row[1:-1]} == {"0.50"}
    assert not re.findall(r'<td class="best" title="[^:]+: 0.5001"', found.source)


def test_the_label_table_has_the_numbers_of_the_results(page: Page, results: Results) -> None:
    header, *rows = page.tables["labels"][0]
    assert header == ["mean Dice", *METHODS, "cases"]
    assert [row[0] for row in rows] == list(LABELS)
    for label, *cells, held in rows:
        assert held == "4"
        for method, cell in zip(METHODS, cells, strict=True):
            assert cell.split(" ")[0] == f"{results['summary'][method][label]['dice_mean']:.2f}"


def test_expected_and_reached_stand_side_by_side(page: Page, results: Results) -> None:
    _, *rows = page.tables["expected"][0]
    reached = results["overall"]["auto"]["dice_mean"]
    assert rows[0] == ["auto", "0.80", f"{reached:.2f}", f"{reached - 0.8:+.2f}".replace("-", "−")]
    assert [row[0] for row in rows] == ["auto", "contrastive+walker", "prototype"]


def test_every_case_is_a_point_in_the_box_plots(page: Page, results: Results) -> None:
    seen = [text for text in page.said("title") if re.fullmatch(r"phantom_0\d: [01]\.\d{3}", text)]
    assert len(seen) == 4 * len(METHODS) * (len(LABELS) + 1)


def test_confusion_is_shared_out_by_rows_and_holds_the_background(page: Page, results: Results) -> None:
    header, *rows = page.tables["confusion"][0]
    assert header[1:] == [*LABELS, "background"] == [row[0] for row in rows]
    of = results["confusion"]["auto"]["liver"]
    assert rows[0][1] == f"{100 * of['liver'] / sum(of.values()):.0f}"
    assert len(page.tables["confusion"]) == len(METHODS)


def test_best_median_and_worst_prediction_of_every_label_are_drawn(page: Page, results: Results) -> None:
    assert page.said("rank") == ["best", "median", "worst"] * len(LABELS)
    assert page.said("summary")[: len(LABELS)] == [f"{label} " for label in LABELS]
    dice = dice_by_label(results, "auto")["liver"]
    names = re.findall(r'aria-label="liver, (\w+) case (phantom_\d+)', page.source)
    assert dict(names) == {rank: case for rank, (case, _) in extremes(dice).items()}
    shown = re.search(r'm0">Dice <b>([\d.]+)</b></span>.*?seed (\d)', page.source, re.DOTALL)
    assert shown is not None
    assert shown[1] == f"{max(dice.values()):.2f}"


def test_every_method_is_drawn_on_every_picture_and_one_is_shown(page: Page) -> None:
    drawn = re.findall(r'<g class="of m(\d)">', page.source)
    assert drawn == ["0", "1", "2", "3", "4"] * 3 * len(LABELS)
    assert ("input", "checked", "") in page.attributes
    assert page.of("image", "href")
    assert all(of.startswith("data:image/webp;base64,") for of in page.of("image", "href"))


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert "http" not in page.source.lower()
    assert "@import" not in page.source
    assert "url(" not in page.source
    links = [value for _, key, value in page.attributes if key in ("src", "href", "srcset", "action", "data")]
    assert all(link.startswith("data:") for link in links)
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "object", "img"}


def test_the_command_settings_and_versions_are_named(page: Page, results: Results) -> None:
    assert page.said("code") == [results["command"]]
    assert {"0123456789abcdef", "2026-11-21T10:00:00+00:00", "phantom_04: 3, 7, 9"} <= {*page.said("dd")}
    assert any("fewshot 0.3.0" in text for text in page.said("dd"))


def test_colours_come_from_the_page_so_that_dark_mode_works(page: Page) -> None:
    used = {value for tag, key, value in page.attributes if key in ("fill", "stroke") and tag != "path"}
    assert not {of for of in used if of in ("black", "white", "#000", "#fff")}
    assert {"var(--ink)", "var(--soft)"} <= used


@pytest.mark.parametrize("where", ["label", "case", "method", "text"])
def test_special_characters_stay_text(changed: Callable, where: str) -> None:
    def spoil(results: Results) -> None:
        for row in results["rows"]:
            if where == "label" and row["label"] == "liver":
                row["label"] = NASTY
            if where == "case" and row["case"] == "phantom_00":
                row["case"] = NASTY
            if where == "method" and row["adapter"] == "prototype":
                row["adapter"] = NASTY
        if where == "label":
            results["settings"]["labels"] = {NASTY: 1, "spleen": 2, "kidney_right": 3, "kidney_left": 4}
            results["confusion"]["auto"][NASTY] = results["confusion"]["auto"].pop("liver")
        if where == "text":
            results.update(
                dataset=NASTY, command=NASTY, backbone=NASTY, failed={NASTY: NASTY}, versions={NASTY: NASTY},
                options={NASTY: {NASTY: NASTY}},
            )  # fmt: skip

    page = changed(spoil)
    assert NASTY in page.text.replace("\n", "") or where == "method"  # a method's name is broken into parts
    assert "<b>&" not in page.source


def keep(**wanted: Any) -> Callable[[Results], None]:
    def change(results: Results) -> None:
        results["rows"] = [
            row for row in results["rows"] if all(row[key] == value for key, value in wanted.items())
        ]

    return change


def test_one_case_has_no_interval(changed: Callable) -> None:
    page = changed(keep(case="phantom_01"))
    assert "on 1 unseen case;" in page.said("outcome")[0]
    assert "[" not in page.tables["overall"][0][1][1]


def test_one_label_alone_has_one_box_plot(changed: Callable) -> None:
    page = changed(keep(label="spleen"))
    assert "auto finds 1 label with" in page.said("outcome")[0]
    assert page.source.count("Dice per case, ") == 1


def test_one_method_alone_is_not_called_the_best(changed: Callable) -> None:
    def change(results: Results) -> None:
        keep(adapter="auto")(results)
        results["models"] = [of for of in results["models"] if of["adapter"] == "auto"]
        results["confusion"] = {"auto": results["confusion"]["auto"]}

    page = changed(change)
    assert page.said("outcome")[0].endswith("unseen cases.")
    assert not page.of("input", "type")
    assert 'class="best"' not in page.source


def test_labels_that_no_case_holds_have_no_numbers(changed: Callable) -> None:
    def change(results: Results) -> None:
        for row in results["rows"]:
            row.update(
                dict.fromkeys(
                    (
                        "iou",
                        "dice",
                        "hd95_mm",
                        "surface_mm",
                        "distance_mm",
                        "distance_px",
                        "hit_10px",
                        "volume_error",
                        "ece",
                    )
                )
            )
        results["confusion"] = {}

    page = changed(change)
    assert "No Dice could be computed" in page.said("outcome")[0]
    assert {cell for row in page.tables["overall"][0][1:] for cell in row[1:7]} == {"–"}
    assert page.said("h3") == []


def test_a_method_without_any_row_is_listed(changed: Callable) -> None:
    def change(results: Results) -> None:
        results["rows"] = [row for row in results["rows"] if row["adapter"] != "unet"]
        results["confusion"].pop("unet")

    page = changed(change)
    last = page.tables["overall"][0][-1]
    assert last[0] == "unet baseline"
    assert last[1] == "–"


def test_results_without_any_row_or_promise_are_still_a_page(changed: Callable) -> None:
    def change(results: Results) -> None:
        results.update(rows=[], models=[], timings=[], confusion={}, runs=[], versions={}, options={})

    page = changed(change)
    assert "expected" not in page.tables
    assert "No Dice could be computed" in page.said("outcome")[0]


def test_nothing_promised_means_no_table_of_it(changed: Callable) -> None:
    def change(results: Results) -> None:
        for of in results["models"]:
            of["scores"] = {}

    assert "Expected and reached" not in changed(change).text


def test_forty_labels_fit_and_stay_below_the_bound(changed: Callable) -> None:
    names = [f"structure_{number:02d}_left" for number in range(40)]

    def change(results: Results) -> None:
        liver = [row for row in results["rows"] if row["label"] == "liver"]
        results["rows"] = [row | {"label": name} for name in names for row in liver]
        every = [*names, "background"]
        results["confusion"] = {
            method: {name: {other: 1 + 50 * (name == other) for other in every} for name in every}
            for method in METHODS
        }

    page = changed(change)
    assert len(page.tables["labels"][0]) == 41
    assert len(page.tables["confusion"][0][1]) == 42
    assert "Box plots of 40 labels" in page.text
    assert len(page.source) < 3_000_000


def test_a_missing_prediction_is_left_out_of_the_pictures(
    made: tuple[Path, Dataset], results: Results, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(made[0], folder)
    dice = dice_by_label(results, "auto")
    worst = extremes(dice["spleen"])["worst"]
    prediction_path(folder, "auto", *worst).unlink()
    for path in folder.glob("seed-*/predictions/unet/*"):
        path.unlink()
    page = Page(write_report(folder, made[1]))
    drawn = [
        (label, rank) for label in LABELS for rank, found in extremes(dice[label]).items() if found != worst
    ]
    assert re.findall(r'aria-label="(\w+), (\w+) case phantom', page.source) == drawn
    assert page.text.count("no prediction") == len(drawn)


def test_the_picture_of_an_only_case_has_no_rank(made: tuple[Path, Dataset], results: Results) -> None:
    dice = {"liver": dict([*dice_by_label(results, "auto")["liver"].items()][:1])}
    drawn = report_pictures.make_pictures(*made, results, ["auto"], dice)
    assert [picture.rank for picture in drawn["liver"]] == ["only case"]


def test_a_picture_shows_truth_and_prediction_at_their_size(
    made: tuple[Path, Dataset], results: Results
) -> None:
    drawn = report_pictures.make_pictures(*made, results, list(METHODS), dice_by_label(results, "auto"))
    for label, pictures in drawn.items():
        for picture in pictures:
            assert max(picture.width, picture.height) == 360
            assert picture.edges == ("R", "L", "A", "P")
            assert picture.truth.startswith("M")
            focus = [shape for of in picture.drawn.values() for shape in of.shapes if shape.focus]
            assert {shape.name for shape in focus} <= {label}
            assert all(
                of.shapes[-1].focus for of in picture.drawn.values() if any(s.focus for s in of.shapes)
            )


def test_pictures_end_where_the_file_would_grow_too_large(
    made: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    dice = dice_by_label(results, "auto")
    all_drawn = report_pictures.make_pictures(*made, results, list(METHODS), dice)
    size = sum(picture.size for picture in all_drawn["liver"])
    some = report_pictures.make_pictures(*made, results, list(METHODS), dice, budget=size)
    assert list(some) == ["liver"]


def test_of_many_labels_lowest_median_and_highest_are_unfolded() -> None:
    dice = {f"l{number}": {("a", 0): (number * 7 % 10) / 10} for number in range(9)} | {"none": {}}
    order, unfolded = label_order(dice)
    assert unfolded == 3
    assert [dice[label]["a", 0] for label in order[:3]] == [0.0, 0.5, 0.9]
    assert sorted(order) == [f"l{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({}, {}),
        ({"a": 0.5}, {"best": "a"}),
        ({"a": 0.5, "b": 0.7}, {"best": "b", "worst": "a"}),
        ({"a": 0.5, "b": 0.7, "c": 0.6}, {"best": "b", "median": "c", "worst": "a"}),
        ({"b": 0.5, "a": 0.5, "c": 0.5}, {"best": "a", "median": "b", "worst": "c"}),
    ],
)
def test_best_median_and_worst_are_different(dice: dict[str, float], expected: dict[str, str]) -> None:
    found = extremes({(case, 0): value for case, value in dice.items()})
    assert {rank: case for rank, (case, _) in found.items()} == expected


def test_the_worst_mix_ups_are_named_and_full_rows_are_full() -> None:
    found = heat_map(
        {
            "left": {"left": 60, "right": 30, "background": 10},
            "right": {"left": 0, "right": 50},
            "gone": {},
            "background": {"left": 1, "background": 999},
        }
    )
    assert found.names == ["left", "right", "gone", "background"]
    assert found.worst == ["left taken for right: 30% of its voxels"]
    texts = {name: [cell.text if cell else "" for cell in cells] for name, cells in found.rows}
    assert texts == {
        "left": ["60", "30", "", "10"],
        "right": ["", "100", "", ""],
        "gone": ["", "", "", ""],
        "background": ["·", "", "", "99"],
    }
