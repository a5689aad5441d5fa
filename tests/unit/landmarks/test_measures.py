"""Distances and angles."""

from __future__ import annotations

import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks.measures import Measure, angle, distance, parse_measure

POINTS = {
    "a": (0.0, 0.0, 0.0),
    "b": (3.0, 4.0, 12.0),
    "x": (2.0, 0.0, 0.0),
    "y": (0.0, 5.0, 0.0),
    "also a": (0.0, 0.0, 0.0),
}


def test_distance():
    assert distance(POINTS, "a", "b") == distance(POINTS, "b", "a") == 13


def test_angle():
    assert angle(POINTS, "x", "a", "y") == pytest.approx(90)
    assert angle({**POINTS, "z": (-1.0, 0.0, 0.0)}, "x", "a", "z") == pytest.approx(180)
    assert angle({**POINTS, "z": (5.0, 5e-9, 0.0)}, "x", "a", "z") == pytest.approx(5.73e-8, rel=1e-3)


def test_what_cannot_be_measured():
    with pytest.raises(FewshotError, match="Landmark c was not found"):
        distance(POINTS, "a", "c")
    with pytest.raises(FewshotError, match="no angle at a"):
        angle(POINTS, "also a", "a", "x")
    assert Measure("distance", ("a", "c")).of(POINTS) is None
    assert Measure("angle", ("also a", "a", "x")).of(POINTS) is None


def test_requests():
    asked = parse_measure("angle", "x, a,y", POINTS)
    assert (asked.name, asked.of(POINTS)) == ("angle x,a,y", pytest.approx(90))
    assert parse_measure("distance", "a,also a", POINTS).of(POINTS) == 0


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("distance", "a", "2 different landmarks"),
        ("distance", "a,b,x", "2 different landmarks"),
        ("angle", "a,b", "3 different landmarks"),
        ("distance", "a,a", "2 different landmarks"),
        ("distance", "a,q", "no landmark q; known are a, b"),
    ],
)
def test_bad_requests(kind, text, said):
    with pytest.raises(FewshotError, match=said):
        parse_measure(kind, text, POINTS)
