"""What each strategy says about a component."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.errors import FewshotError
from fewshot.refine.prompt import Prompt
from fewshot.refine.prompts import LOW, PROMPTS, prompts_for

POINTWISE = [name for name in PROMPTS if name != "box"]
MANY = ["random", "kmeans", "box+random", "background", "certain"]


def ball(centre=(20, 25), radius=8.0, shape=(48, 60)):
    rows, cols = np.indices(shape)
    return (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 < radius**2


def crescent():
    """Its centroid lies in the hollow."""
    return ball((24, 28), 18.0) & ~ball((24, 32), 18.0)


def ask(strategy, mask, probability=None, *, count=10, seed=0, label=None) -> Prompt:
    probability = mask.astype(np.float32) if probability is None else probability
    return prompts_for(strategy, mask, probability, count=count, rng=np.random.default_rng(seed), label=label)


def foreground(prompt: Prompt) -> set[tuple[int, int]]:
    return {(int(row), int(col)) for row, col in prompt.points[prompt.labels == 1]}


def background(prompt: Prompt) -> np.ndarray:
    return prompt.points[prompt.labels == 0].astype(int)


@pytest.mark.parametrize("strategy", list(PROMPTS))
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14))
def test_points_are_different_pixels_of_the_component_and_never_more_than_asked_for(strategy, seed, count):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < rng.random()
    mask[rng.integers(7), rng.integers(9)] = True
    probability = rng.random(mask.shape).astype(np.float32)
    prompt = ask(strategy, mask, probability, count=count, seed=seed)
    inside = prompt.points[prompt.labels == 1]
    assert prompt.points.shape == (len(prompt.labels), 2)
    assert len(foreground(prompt)) == len(inside) <= count
    assert all(mask[at] for at in foreground(prompt))
    assert not mask[tuple(background(prompt).T)].any()


@pytest.mark.parametrize("strategy", MANY)
def test_ten_points_by_default(strategy):
    mask = ball()
    prompt = prompts_for(strategy, mask, mask.astype(np.float32), rng=np.random.default_rng(0))
    assert len(foreground(prompt)) == 10


@pytest.mark.parametrize("strategy", ["random", "kmeans", "box+random", "background"])
def test_fewer_pixels_than_points_gives_each_pixel_once(strategy):
    mask = np.zeros((9, 9), bool)
    mask[4, 2:6] = True
    assert foreground(ask(strategy, mask)) == {(4, col) for col in range(2, 6)}


@pytest.mark.parametrize("strategy", list(PROMPTS))
def test_same_seed_same_prompt(strategy):
    mask, probability = ball(), np.random.default_rng(1).random((48, 60)).astype(np.float32)
    one, other = (ask(strategy, mask, probability, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("strategy", ["random", "kmeans", "background", "certain"])
def test_another_seed_gives_other_points(strategy):
    assert foreground(ask(strategy, ball(), seed=0)) != foreground(ask(strategy, ball(), seed=1))


def test_random_points_reach_every_part_of_the_component():
    mask = ball(radius=4)
    seen = set().union(*(foreground(ask("random", mask, seed=seed)) for seed in range(200)))
    assert seen == {(int(row), int(col)) for row, col in np.argwhere(mask)}


def closest(prompt: Prompt) -> float:
    """Distance of the two points that are closest to each other."""
    distances = np.linalg.norm(prompt.points[:, None] - prompt.points[None], axis=-1)
    return float(distances[np.triu_indices(len(distances), 1)].min())


@pytest.mark.parametrize("strategy", ["kmeans", "certain"])
def test_spread_points_lie_farther_apart_than_random_ones(strategy):
    spread = [closest(ask(strategy, ball(radius=14), seed=seed)) for seed in range(8)]
    assert min(spread) > np.mean([closest(ask("random", ball(radius=14), seed=seed)) for seed in range(8)])


def test_centroid_is_the_middle_of_a_ball():
    assert foreground(ask("centroid", ball())) == {(20, 25)}


def test_centroid_lies_inside_a_crescent():
    mask = crescent()
    middle = np.argwhere(mask).mean(0)
    assert not mask[tuple(np.round(middle).astype(int))]
    (point,) = foreground(ask("centroid", mask))
    assert mask[point]
    nearest = np.linalg.norm(np.argwhere(mask) - middle, axis=1).min()
    assert np.linalg.norm(np.array(point) - middle) == pytest.approx(nearest)


def test_box_goes_from_the_first_to_the_last_pixel():
    mask = np.zeros((20, 30), bool)
    mask[3:9, 12:13] = True
    prompt = ask("box", mask)
    assert prompt.box == (3, 12, 8, 12)
    assert prompt.points.shape == (0, 2)
    assert prompt.labels.shape == (0,)


def test_box_and_random_has_both():
    prompt = ask("box+random", ball())
    assert prompt.box == ask("box", ball()).box
    assert foreground(prompt) == foreground(ask("random", ball()))


def test_background_points_surround_the_component_where_the_probability_is_low():
    mask = ball()
    probability = np.where(ball(radius=14), 0.4, 0.05).astype(
        np.float32
    )  # it may reach farther than it was localised
    points = np.concatenate([background(ask("background", mask, probability, seed=s)) for s in range(30)])
    distance = np.linalg.norm(points - (20, 25), axis=1)
    assert (probability[tuple(points.T)] < LOW).all()
    assert distance.min() >= 14
    assert distance.max() < 30
    assert (points[:, 0] < 20).any()
    assert (points[:, 1] > 25).any()


def test_background_points_never_lie_in_another_part_of_the_label():
    mask, other = ball((20, 25), 6), ball((20, 40), 6)
    nothing = np.zeros(mask.shape, np.float32)  # a part that completion added has no probability of its own
    for seed in range(40):
        points = background(ask("background", mask, nothing, seed=seed, label=mask | other))
        assert len(points) == 5
        assert not other[tuple(points.T)].any()


def test_no_background_points_where_all_around_may_belong_to_the_label():
    prompt = ask("background", ball(), np.full((48, 60), 0.5, np.float32))
    assert len(background(prompt)) == 0
    assert len(foreground(prompt)) == 10


def test_background_at_the_border_of_the_image():
    mask = ball((0, 0), 10)
    points = background(ask("background", mask))
    assert len(points) == 5
    assert (points >= 0).all()


def test_mask_is_the_probability_as_logits():
    mask = ball()
    probability = np.clip(0.9 - 0.02 * np.linalg.norm(np.indices(mask.shape).T - (20, 25), axis=-1).T, 0, 1)
    prompt = ask("mask", mask, probability.astype(np.float32))
    assert prompt.mask.dtype == np.float32
    np.testing.assert_array_equal(prompt.mask > 0, probability.astype(np.float32) > 0.5)
    assert prompt.mask[20, 25] == pytest.approx(np.log(9), rel=1e-4)
    assert np.isfinite(prompt.mask).all()
    assert foreground(prompt) == {(20, 25)}


def test_mask_says_nothing_of_the_labels_other_parts():
    mask, other = ball((20, 15), 6), ball((20, 45), 6)
    prompt = ask("mask", mask, (mask | other).astype(np.float32), label=mask | other)
    np.testing.assert_array_equal(prompt.mask > 0, mask)


def test_certain_points_are_the_most_certain_ones_at_a_distance():
    mask = ball(radius=14)
    probability = np.linspace(0.3, 1.0, 60, dtype=np.float32)[None].repeat(48, 0)
    prompt = ask("certain", mask, probability, count=4)
    assert prompt.points[0, 1] == np.argwhere(mask)[:, 1].max()
    assert closest(prompt) > 0.5 * np.sqrt(mask.sum() / 4)
    assert prompt.points[:, 1].mean() > 30  # the centre of the ball is at 25


@pytest.mark.parametrize("strategy", list(PROMPTS))
def test_one_pixel_is_enough(strategy):
    mask = np.zeros((5, 6), bool)
    mask[4, 5] = True
    prompt = ask(strategy, mask)
    assert prompt.box == (4, 5, 4, 5) if strategy.startswith("box") else prompt.box is None
    assert foreground(prompt) == (set() if strategy == "box" else {(4, 5)})


def test_an_empty_mask_is_refused():
    with pytest.raises(FewshotError, match="empty mask"):
        ask("random", np.zeros((4, 4), bool))


def test_an_unknown_strategy_is_named_with_those_there_are():
    with pytest.raises(FewshotError, match=r"'ten'.*random, kmeans, centroid"):
        ask("ten", ball())


@pytest.mark.parametrize("strategy", list(PROMPTS))
def test_every_strategy_is_described(strategy):
    assert len(PROMPTS[strategy].description) > 10
