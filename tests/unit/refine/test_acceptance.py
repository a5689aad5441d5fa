"""When a mask is taken."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.refine.acceptance import (
    SWALLOWS,
    TOO_LITTLE,
    TOO_MUCH,
    UNSURE,
    Rules,
    attached,
    body_pixels,
    choose,
    judge,
)

SHAPE = (100, 100)
RULES = Rules()


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


CORE = square(40, 40, 10)


def test_a_mask_of_several_times_the_core_is_taken():
    assert judge(square(35, 35, 25), CORE, 0.9, RULES) is None


def test_the_component_itself_is_taken():
    assert judge(CORE, CORE, 0.9, RULES) is None


@pytest.mark.parametrize(
    ("mask", "quality", "reason"),
    [
        (CORE, 0.2, UNSURE),
        (CORE, float("nan"), UNSURE),
        (np.zeros(SHAPE, bool), 0.9, TOO_LITTLE),
        (square(40, 46, 10), 0.9, TOO_LITTLE),
        (square(60, 60, 10), 0.9, TOO_LITTLE),
        (np.ones(SHAPE, bool), 0.9, SWALLOWS),
        (square(30, 30, 40), 0.9, TOO_MUCH),
    ],
)
def test_reasons(mask, quality, reason):
    assert judge(mask, CORE, quality, RULES) == reason


def test_the_limit_is_a_share_of_the_body_not_of_the_air_around_it():
    mask = square(35, 35, 25)
    assert judge(mask, CORE, 0.9, RULES, body=10_000) is None
    assert judge(mask, CORE, 0.9, RULES, body=1_000) == SWALLOWS


def test_a_component_that_is_most_of_the_body_may_still_be_refined():
    brain = square(10, 10, 60)
    assert judge(square(8, 8, 64), brain, 0.9, RULES, body=5_000) is None
    assert judge(square(0, 0, 90), brain, 0.9, RULES, body=5_000) == SWALLOWS


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (Rules(quality=0.95), UNSURE),
        (Rules(agreement=0.7), TOO_LITTLE),
        (Rules(growth=2.0), TOO_MUCH),
        (Rules(body=0.02), SWALLOWS),
    ],
)
def test_each_rule_can_be_set(rules, reason):
    mask = square(35, 44, 20)  # six of the component's ten columns
    assert judge(mask, CORE, 0.9, RULES) is None
    assert judge(mask, CORE, 0.9, rules) == reason


def test_limits_themselves_are_allowed():
    half = square(40, 45, 10)
    assert judge(half, CORE, RULES.quality, RULES) is None
    twice = square(40, 40, 20)
    assert judge(twice, CORE, 0.9, Rules(growth=4.0), body=800) is None


def test_islands_elsewhere_are_dropped_and_touching_pieces_stay():
    near, far = square(35, 35, 12), square(80, 5, 6)
    corner = square(47, 47, 4)  # touches `near` by its corner
    np.testing.assert_array_equal(attached(near | far | corner, CORE), near | corner)


def test_of_a_mask_beside_the_component_nothing_is_left():
    assert not attached(square(80, 80, 5), CORE).any()
    assert not attached(np.zeros(SHAPE, bool), CORE).any()


def test_a_component_partly_outside_of_the_mask_does_not_hold_everything():
    mask = square(40, 46, 10) | square(0, 0, 5)
    np.testing.assert_array_equal(attached(mask, CORE), square(40, 46, 10))


def test_the_best_candidate_by_quality_and_agreement():
    masks = np.stack([square(40, 44, 10), square(38, 38, 14), square(38, 38, 16)])
    assert choose(masks, np.array([0.95, 0.8, 0.7]), CORE, RULES) == (1, None)
    assert choose(masks, np.array([0.95, 0.5, 0.5]), CORE, RULES) == (0, None)


def test_a_candidate_that_can_be_taken_goes_before_a_better_one_that_cannot():
    masks = np.stack([square(38, 38, 14), np.ones(SHAPE, bool)])
    assert choose(masks, np.array([0.6, 0.99]), CORE, RULES) == (0, None)


def test_the_best_of_the_refused_gives_the_reason():
    masks = np.stack([square(60, 60, 10), np.ones(SHAPE, bool)])
    assert choose(masks, np.array([0.9, 0.9]), CORE, RULES) == (1, SWALLOWS)


def test_the_body_is_what_is_seen_and_what_it_surrounds():
    body = square(10, 10, 60)
    lungs = square(20, 15, 20) | square(20, 45, 20)
    assert body_pixels(body) == body_pixels(body & ~lungs) == 3600
    assert body_pixels(body & ~square(50, 10, 5)) == 3600 - 25  # a bay is none of it
    assert body_pixels(np.ones(SHAPE, bool)) == 10_000
    assert body_pixels(np.zeros(SHAPE, bool)) == 0


def test_a_hole_at_the_border_of_the_image_is_outside():
    seen = np.ones(SHAPE, bool)
    seen[:5, :5] = False
    seen[50:60, 97:] = False
    assert body_pixels(seen) == 10_000 - 25 - 30
