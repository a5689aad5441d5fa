"""The dense loss against a loop, and which terms a setting brings."""

import math

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss

from fewshot.pretraining.losses import NEAR, Losses, match_places
from fewshot.pretraining.views import Places
from tests.unit.pretraining.tiny import DENSE, TINY, tiny_settings

TEMPERATURE = 0.1


def unit(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


def some_places(batch, count, *, side=40.0, invalid=0.2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    first = torch.rand(batch, count, 2, generator=draw) * side
    valid = torch.rand(batch, count, generator=draw) >= invalid
    return Places(first, first, torch.cdist(first, first), valid)


def naive(first, second, places):
    losses, right = [], []
    for image in range(len(first)):
        similar = (first[image] @ second[image].T / TEMPERATURE).tolist()
        valid = places.valid[image].tolist()
        for i in range(len(valid)):
            if not valid[i]:
                continue
            others = [
                j for j in range(len(valid)) if j != i and valid[j] and places.apart[image, i, j] >= NEAR
            ]
            own = similar[i][i]
            row, column = [similar[i][j] for j in others], [similar[j][i] for j in others]
            losses += [math.log(sum(map(math.exp, [own, *values]))) - own for values in (row, column)]
            right.append(own >= max(row, default=-math.inf))
    return sum(losses) / len(losses), sum(right) / len(right)


def test_matching_places_is_infonce_both_ways():
    first, second, places = unit(3, 20, 8), unit(3, 20, 8, seed=1), some_places(3, 20)
    assert 0 < places.valid.float().mean() < 1
    loss, accuracy = match_places(first, second, places, TEMPERATURE)
    expected = naive(first, second, places)
    assert loss.item() == pytest.approx(expected[0], rel=1e-5)
    assert accuracy.item() == pytest.approx(expected[1])


@pytest.mark.parametrize("kind", ["near", "invalid", "far"])
def test_neighbours_and_invalid_places_are_no_negatives(kind):
    """Whether place 1 looks like place 0 or not is felt at place 0 only where both are to be told apart."""
    places = some_places(1, 12, invalid=0, side=400.0)
    places.apart[0, 0, 1] = places.apart[0, 1, 0] = NEAR - 0.1 if kind == "near" else NEAR + 0.1
    places.valid[0, 1] = kind != "invalid"
    second, gradients = unit(1, 12, 32, seed=1), []
    for looks in (unit(32, seed=7), unit(1, 12, 32)[0, 0]):
        second[0, 1] = looks
        first = unit(1, 12, 32).requires_grad_()
        match_places(first, second, places, TEMPERATURE)[0].backward()
        gradients.append(first.grad[0, 0])
    assert torch.allclose(*gradients) == (kind != "far")


def test_no_valid_place_costs_nothing():
    places = some_places(2, 6, invalid=2.0)
    first = unit(2, 6, 8).requires_grad_()
    loss, accuracy = match_places(first, unit(2, 6, 8, seed=1), places, TEMPERATURE)
    loss.backward()
    assert (loss, accuracy) == (0, 0)
    assert torch.isfinite(first.grad).all()


def test_accuracy_tells_perfect_features_from_random_ones():
    places = some_places(64, 32, invalid=0, side=1000.0)
    first = unit(64, 32, 16)
    assert match_places(first, first, places, TEMPERATURE)[1] == 1
    assert match_places(first, unit(64, 32, 16, seed=1), places, TEMPERATURE)[1] == pytest.approx(
        1 / 32, abs=0.015
    )


@pytest.fixture
def outputs():
    """Student's and teacher's outputs for two images with two global and one local crop each."""
    prototypes, mask = TINY["prototypes"], torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[0, 0, :3] = mask[2, 1, 1] = True
    student = {
        "image": torch.randn(4, 8),
        "dino": torch.randn(4, prototypes),
        "dino_local": torch.randn(2, prototypes),
        "ibot": torch.randn(4, prototypes),
        "patches": unit(4, 6, 8),
        "details": unit(4, 6, 8, seed=2),
    }
    teacher = {"dino": torch.randn(4, prototypes), "ibot": torch.randn(4, prototypes)}
    return student, teacher, mask, some_places(2, 6)


def test_the_terms_are_those_of_lightly(outputs):
    student, teacher, mask, places = outputs
    terms = Losses(tiny_settings())(*outputs)
    assert set(terms) == {"dino", "ibot", "koleo", "dense", "accuracy"}
    views = [student["dino"][:2], student["dino"][2:], student["dino_local"]]
    prototypes = TINY["prototypes"]
    torch.testing.assert_close(terms["dino"], DINOLoss(prototypes)(list(teacher["dino"].chunk(2)), views))
    torch.testing.assert_close(
        terms["ibot"], IBOTPatchLoss(prototypes)(teacher["ibot"], student["ibot"], mask)
    )
    both = [KoLeoLoss()(half) for half in student["image"].chunk(2)]
    torch.testing.assert_close(terms["koleo"], sum(both) / 2)
    dense = [match_places(*student[name].chunk(2), places, TEMPERATURE) for name in ("patches", "details")]
    torch.testing.assert_close(terms["dense"], (dense[0][0] + dense[1][0]) / 2)
    assert terms["accuracy"] == dense[1][1]


def test_the_sum_is_weighted(outputs):
    losses = Losses(tiny_settings(dino=0.5, ibot=2, koleo=0.25, dense=3))
    terms = losses(*outputs)
    expected = 0.5 * terms["dino"] + 2 * terms["ibot"] + 0.25 * terms["koleo"] + 3 * terms["dense"]
    torch.testing.assert_close(losses.total(terms), expected)


def test_terms_without_weight_are_left_out(outputs):
    student, _, mask, places = outputs
    assert set(Losses(tiny_settings(**DENSE))(student, None, mask, places)) == {"dense", "accuracy"}
    settings = tiny_settings(dense=0, ibot=0, koleo=0)
    assert set(Losses(settings)(*outputs[:3], None)) == {"dino"}
    assert "dino.center" in Losses(tiny_settings()).state_dict()


def test_an_image_without_hidden_tokens_has_no_ibot_loss(outputs):
    student, teacher, mask, places = outputs
    assert "ibot" not in Losses(tiny_settings())(student, teacher, torch.zeros_like(mask), places)
