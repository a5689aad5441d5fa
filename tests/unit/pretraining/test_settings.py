"""Settings are checked before anything is computed; schedules begin and end where they should."""

import json
from dataclasses import asdict

import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.pretraining import PretrainSettings
from fewshot.pretraining.schedule import learning_rate, momentum, set_optimiser, weight_decay
from tests.unit.pretraining.tiny import DENSE, tiny_settings


def test_settings_are_told_in_words_and_numbers():
    settings = PretrainSettings.create({"images": 10.0, "learning_rate": 1, "minutes": 3})
    assert (settings.images, settings.learning_rate, settings.minutes) == (10, 1.0, 3.0)
    assert [type(value) for value in (settings.images, settings.minutes)] == [int, float]
    assert json.loads(settings.to_json()) == asdict(settings)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learningrate": 1}, "no setting learningrate; there are minutes, images"),
        ({"batch": 2.5}, "batch=2.5 does not fit; give a whole number"),
        ({"batch": "many"}, "batch='many' does not fit"),
        ({"dino": True}, "dino=True does not fit"),
        ({"images": float("inf")}, "images=inf does not fit"),
        ({"dense": float("nan")}, "dense=nan does not fit"),
        ({"warmup": 0.95}, "warmup=0.95 is out of range; give 0 to 0.9"),
        ({"batch": 1}, "batch=1 is out of range; give 2 or more"),
        ({"images": 0}, "would never end"),
        ({**DENSE, "dense": 0}, "All losses have the weight 0"),
        ({"batch": 4, "accumulate": 3}, "batch of 4 images has no 3 parts .* accumulate=2"),
    ],
)
def test_bad_settings_are_refused_in_words(values, said):
    with pytest.raises(FewshotError, match=said):
        tiny_settings(**values)


def test_the_learning_rate_rises_and_falls_to_a_hundredth():
    settings = tiny_settings(learning_rate=0.01, warmup=0.2)
    rates = [learning_rate(settings, share / 100) for share in range(101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(0.005)
    assert rates[20] == max(rates) == pytest.approx(0.01)
    assert rates[60] == pytest.approx(0.00505)
    assert rates[100] == pytest.approx(0.0001)
    assert learning_rate(tiny_settings(learning_rate=0.01, warmup=0), 0) == pytest.approx(0.01)


def test_teacher_and_decay_follow_half_a_cosine():
    settings = tiny_settings(teacher_momentum=0.9, weight_decay=0.1)
    assert [momentum(settings, share) for share in (0, 0.5, 1)] == pytest.approx([0.9, 0.94975, 0.9995])
    assert [weight_decay(settings, share) for share in (0, 0.5, 1)] == pytest.approx([0.1, 0.3, 0.5])
    still = tiny_settings(teacher_momentum=1)
    assert [momentum(still, share) for share in (0, 1)] == [1, 1]


def test_the_optimiser_decays_what_was_decayed_alone():
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "decayed": decayed} for decayed in (True, False)
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0)
    set_optimiser(optimiser, tiny_settings(weight_decay=0.1, learning_rate=0.01, warmup=0), 1.0)
    assert [group["weight_decay"] for group in optimiser.param_groups] == pytest.approx([0.5, 0])
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.0001, 0.0001])
