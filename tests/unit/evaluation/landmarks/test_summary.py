"""Means over patients, by hand: a method cannot look better by finding less."""

from __future__ import annotations

from typing import Any

import pytest

from fewshot.evaluation.landmarks.summary import summarise, summarise_all


def row(case: str, landmark: str, error: float | None, **changes: Any) -> dict[str, Any]:
    """A landmark that is there; one without error was not found."""
    found = error is not None
    return {
        "seed": 0, "case": case, "adapter": "m", "view": "whole", "landmark": landmark, "present": True, "found": found,
        "error_mm": error, "error_px": None if error is None else 2 * error, "guess_mm": error,
        "hit_10px": found and 2 * error < 10, "success_2mm": found and error <= 2, "success_4mm": found and error <= 4,
        "success_10mm": found and error <= 10, "seconds": 1.0,
    } | changes  # fmt: skip


def absent(case: str, landmark: str, *, found: bool, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("error_mm", "error_px", "guess_mm", "hit_10px", "success_2mm", "success_4mm", "success_10mm")
    )
    return row(case, landmark, None) | nothing | {"present": False, "found": found} | changes


ROWS = [
    row("ann", "a", 1.0),
    row("ann", "b", 3.0),
    row("bob", "a", 8.0),
    row("bob", "b", None),
    absent("cid", "a", found=True),
    row("ann", "a", 50.0, view="first-half"),
    row("bob", "a", 1.0, view="first-half"),
    absent("ann", "b", found=True, view="first-half"),
    absent("bob", "b", found=False, view="first-half"),
]


def test_errors_are_of_what_was_found_and_shares_of_all():
    of = summarise_all(ROWS)["m"]
    assert (of["cases"], of["landmarks"]) == (2, 4)
    assert of["error_mm_mean"] == pytest.approx((2 + 8) / 2)  # patients count alike
    assert of["error_mm_median"] == 3
    assert of["found_mean"] == pytest.approx((1 + 0.5) / 2)
    assert of["hit_10px_mean"] == pytest.approx((1 + 0) / 2)
    assert of["success_2mm_mean"] == pytest.approx((0.5 + 0) / 2)
    assert of["success_10mm_mean"] == pytest.approx((1 + 0.5) / 2)
    assert of["hit_10px_ci"] == [0, 1]


def test_crops_tell_false_detections_and_what_is_kept():
    of = summarise_all(ROWS)["m"]
    assert (of["absent"], of["false_detections"]) == (3, 2)
    assert of["in_crops"] == 2
    assert of["crops_found_mean"] == 1
    assert of["crops_hit_10px_mean"] == 0.5
    assert of["crops_error_mm_mean"] == pytest.approx(25.5)


def test_landmark_by_landmark():
    of = summarise(ROWS)["m"]
    assert list(of) == ["a", "b"]
    assert of["a"]["error_mm_mean"] == pytest.approx(4.5)
    assert of["b"]["error_mm_mean"] == 3
    assert of["b"]["found_mean"] == 0.5
    assert (of["b"]["absent"], of["b"]["false_detections"]) == (2, 1)


def test_seeds_are_averaged_within_a_patient():
    rows = [
        row("ann", "a", 1.0),
        row("ann", "a", 3.0, seed=1),
        row("bob", "a", 4.0),
        row("bob", "a", 6.0, seed=1),
    ]
    of = summarise_all(rows)["m"]
    assert of["error_mm_mean"] == 3.5
    assert of["error_mm_sd"] == pytest.approx(4.5**0.5)
    assert of["error_mm_seed_sd"] == pytest.approx(2**0.5)


def test_nothing_known_is_not_zero():
    of = summarise_all([absent("cid", "a", found=False)])["m"]
    assert (of["cases"], of["error_mm_mean"], of["hit_10px_mean"], of["crops_found_mean"]) == (
        0,
        None,
        None,
        None,
    )
    assert of["false_detections"] == 0
