"""Charts: every value is where it belongs, and names do not cover one another."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fewshot.evaluation.charts import (
    CHARACTER,
    FONT,
    RIGHT,
    WIDTH,
    Mark,
    box_plot,
    interval_plot,
    place_names,
    scatter_plot,
)

SVG = "{http://www.w3.org/2000/svg}"
MARKS = [Mark("auto", "#111111"), Mark("<unet>", "#222222", baseline=True), Mark("n" * 60, "#333333")]


def tree(svg: str) -> ET.Element:
    """The chart as an XML tree."""
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def titles(root: ET.Element) -> list[str | None]:
    return [title.text for title in root.iter(f"{SVG}title")]


def scale(root: ET.Element) -> tuple[float, float]:
    """Where the ticks 0 and 1 of a box plot stand."""
    ticks = {text.text: float(text.get("x", 0)) for text in root.iter(f"{SVG}text") if text.get("y")}
    return ticks["0"], ticks["1"]


def test_every_case_is_a_point_with_its_name() -> None:
    root = tree(
        box_plot(
            [(MARKS[0], {"a": 0.0, "<b>": 0.5, "c": 1.0}), (MARKS[1], {"a": 0.25}), (MARKS[2], {})],
            title="<x>",
        )
    )
    assert titles(root) == ["a: 0.000", "<b>: 0.500", "c: 1.000", "a: 0.250"]
    zero, one = scale(root)
    points = [float(circle.get("cx", 0)) for circle in root.iter(f"{SVG}circle")]
    assert points == pytest.approx([zero, (zero + one) / 2, one, zero + (one - zero) / 4], abs=0.1)


def test_the_box_is_the_quartiles_and_whiskers_leave_outliers_out() -> None:
    values = {str(i): v for i, v in enumerate([0.1, 0.6, 0.65, 0.7, 0.75, 0.8])}
    root = tree(box_plot([(MARKS[0], values)], title="x"))
    zero, one = scale(root)
    (box,) = root.iter(f"{SVG}rect")
    assert float(box.get("width", 0)) / (one - zero) == pytest.approx(0.7375 - 0.6125, abs=0.002)
    whiskers = next(path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("stroke") == "#111111")
    ends = [(float(end) - zero) / (one - zero) for end in re.findall(r"[MH]([\d.]+)", whiskers)]
    assert ends == pytest.approx([0.6, 0.6125, 0.7375, 0.8], abs=0.002)


@pytest.mark.parametrize("values", [[0.7, 0.71], [0.0], [1.0, 1.0], [0.0, 1.0], [0.98, 0.995]])
def test_intervals_lie_within_the_chart_whatever_the_values(values: list[float]) -> None:
    rows = [(MARKS[0], value, (max(0.0, value - 0.04), min(1.0, value + 0.04))) for value in values]
    root = tree(interval_plot([*rows, (MARKS[1], values[0], None)], title="x"))
    numbers = [
        float(at) for path in root.iter(f"{SVG}path") for at in re.findall(r"[MH]([\d.]+)", path.get("d", ""))
    ]
    assert min(numbers) >= 0
    assert max(numbers) <= WIDTH
    assert titles(root)[-1] == f"<unet>: {values[0]:.2f}"
    assert titles(root)[0] == f"auto: {rows[0][1]:.2f} [{rows[0][2][0]:.2f}, {rows[0][2][1]:.2f}]"


def test_adapters_and_baselines_have_different_shapes() -> None:
    root = tree(interval_plot([(mark, 0.5, None) for mark in MARKS[:2]], title="x"))
    assert len(list(root.iter(f"{SVG}circle"))) == len(list(root.iter(f"{SVG}rect"))) == 1


@pytest.mark.parametrize("seconds", [[0.5], [1.0, 1.0], [0.001, 5000.0], [2.0, 2.1, 2.2]])
def test_seconds_are_on_a_logarithmic_axis(seconds: list[float]) -> None:
    marks = itertools.cycle(MARKS[:1])
    root = tree(scatter_plot([(next(marks), of, 0.5) for of in seconds], title="x", across="s", up="Dice"))
    at = [float(circle.get("cx", 0)) for circle in root.iter(f"{SVG}circle")]
    assert at == sorted(at)
    assert all(30 < x < RIGHT for x in at)
    ticks = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "middle"][:-1]
    assert 1 <= len(ticks) <= 8
    steps = {(float(tick.text or 0), float(tick.get("x", 0))) for tick in ticks}
    for (one, x), (other, y) in itertools.combinations(sorted(steps), 2):
        assert x < y, (one, other)


def test_names_do_not_cover_one_another_or_leave_the_box() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        points = [tuple(of) for of in rng.uniform((60, 40), (320, 200), (9, 2))]
        names = [
            "contrastive+walker",
            "auto",
            "registration",
            "unet",
            "knn",
            "local-prototypes",
            "persam",
            "ridge",
            "x",
        ]
        texts = place_names(points, names, (34, 18, 332, 208))
        boxes = [
            (x, y - FONT + 2, x + len(n) * CHARACTER, y + 2) for (x, y), n in zip(texts, names, strict=True)
        ]
        assert all(box[0] >= 34 and box[2] <= 332.01 and box[1] >= 15 and box[3] <= 210 for box in boxes)
        for one, other in itertools.combinations(boxes, 2):
            wide = min(one[2], other[2]) - max(one[0], other[0])
            high = min(one[3], other[3]) - max(one[1], other[1])
            assert min(wide, high) <= 0
