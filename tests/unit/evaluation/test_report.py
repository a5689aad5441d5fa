"""The report holds everything inside, and nothing that a case name could break."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from fewshot.evaluation.boxplot import box_plot
from fewshot.evaluation.report import extremes

SVG = "{http://www.w3.org/2000/svg}"


def draw(values: dict[str, dict[str, float]]) -> ET.Element:
    """The plot as an XML tree."""
    svg = box_plot(values, title="Dice <per> case").replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1
    )
    return ET.fromstring(svg)


def test_every_value_is_a_point_with_its_name() -> None:
    tree = draw({"basic": {"a": 0.0, "<b>": 0.5, "c": 1.0}, "contrastive": {"a": 0.25}, "nothing": {}})
    titles = [title.text for title in tree.iter(f"{SVG}title")]
    assert titles == ["a: 0.000", "<b>: 0.500", "c: 1.000", "a: 0.250"]
    assert len(list(tree.iter(f"{SVG}rect"))) == 2


def test_the_box_is_the_quartiles_and_whiskers_leave_outliers_out() -> None:
    values = {str(i): v for i, v in enumerate([0.1, 0.6, 0.65, 0.7, 0.75, 0.8])}
    tree = draw({"basic": values})
    (box,) = tree.iter(f"{SVG}rect")
    lines = [(float(of.get("x1", 0)), float(of.get("x2", 0))) for of in tree.iter(f"{SVG}line")]
    unit = lines[4][0] - lines[0][0]  # the ticks at 0 and 1
    low, high = ((x - lines[0][0]) / unit for x in lines[5])
    assert (low, high) == pytest.approx((0.6, 0.6125), abs=0.002)
    assert float(box.get("width", 0)) / unit == pytest.approx(0.7375 - 0.6125, abs=0.002)


def test_colours_come_from_the_page_so_that_dark_mode_works() -> None:
    plot = box_plot({"basic": {"a": 0.5}}, title="x")
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', plot)) <= {
        "var(--ink)", "var(--soft)", "var(--line)", "var(--mark)", "none",
    }  # fmt: skip


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
def test_best_median_and_worst_are_different_cases(dice: dict[str, float], expected: dict[str, str]) -> None:
    assert extremes(dice) == expected
