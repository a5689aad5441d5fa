"""The loop: teacher, accumulation, resuming, and a loss that is no longer a number."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.features.registry import load_model
from fewshot.pretraining import batches
from fewshot.pretraining import training as module
from fewshot.pretraining.batches import SliceSampler, make_views
from fewshot.pretraining.checkpoint import load_checkpoint
from fewshot.pretraining.losses import Losses
from fewshot.pretraining.network import parameter_groups
from fewshot.pretraining.schedule import momentum
from fewshot.pretraining.training import Training
from tests.unit.pretraining.tiny import DENSE, START, tiny_settings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def begin(store, alone, tmp_path):
    """A training with these changes of the settings, taken up from its checkpoint if there is one."""

    def begin(start=START, weights="", **changes):
        model, _ = load_model(start)
        settings = tiny_settings(**changes)
        return Training(
            model, store, settings, checkpoint=tmp_path / "checkpoint.pt", processes=alone, start=weights
        )

    return begin


def weights_of(training):
    return {
        **training.student.state_dict(),
        **{f"teacher.{k}": v for k, v in training.teacher.state_dict().items()},
    }


def assert_equal_weights(first, second):
    a, b = weights_of(first), weights_of(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_all_terms_are_told_and_the_loss_is_their_sum(begin):
    training = begin()
    terms = training.step()
    assert set(terms) == {"dino", "ibot", "koleo", "dense", "accuracy", "loss"}
    assert terms["loss"] == pytest.approx(
        terms["dino"] + terms["ibot"] + 0.1 * terms["koleo"] + terms["dense"], rel=1e-5
    )
    assert training.images == 4
    assert 0 <= terms["accuracy"] <= 1


def test_the_dense_term_is_learned(begin):
    training = begin(**DENSE, images=160, warmup=0, batch=8, learning_rate=3e-3)
    values = [training.step()["dense"] for _ in range(20)]
    assert sum(values[-4:]) < 0.9 * sum(values[:4])


def test_the_teacher_is_the_moving_average_of_the_student(begin):
    training = begin(warmup=0, teacher_momentum=0.8)
    training.step()
    before = copy.deepcopy(training.teacher)
    share = training.share
    training.step()
    rate = momentum(training.settings, share)
    assert 0.8 < rate < 0.9995
    for old, student, teacher in zip(
        before.parameters(), training.student.parameters(), training.teacher.parameters(), strict=True
    ):
        torch.testing.assert_close(teacher, rate * old + (1 - rate) * student)
    for student, teacher in zip(training.student.buffers(), training.teacher.buffers(), strict=True):
        assert torch.equal(student, teacher)
    assert not any(parameter.requires_grad for parameter in training.teacher.parameters())


def test_matrices_are_decayed_and_the_rest_is_not(begin):
    student = begin().student
    decayed, others = parameter_groups(student, 0.1)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    left_alone = {names[id(parameter)] for parameter in others["params"]}
    assert {"mask_token", "backbone.cls_token", "backbone.pos_embed", "backbone.norm.weight"} <= left_alone
    assert {names[id(parameter)].rpartition(".")[2] for parameter in decayed["params"]} <= {
        "weight",
        "weight_v",
    }
    trained = sum(parameter.requires_grad for parameter in student.parameters())
    assert len(decayed["params"]) + len(left_alone) == trained


def halves(batch, places):
    """Two batches of half the images; the crops come first crops first."""
    count = len(batch["images"]) // 2
    for images in (torch.arange(count // 2), torch.arange(count // 2, count)):
        both = torch.cat([images, images + count])
        part = {name: batch[name][both] for name in ("images", "mask", "keep", "places")}
        yield (
            {**batch, **part},
            replace(places, **{n: getattr(places, n)[images] for n in ("first", "second", "apart", "valid")}),
        )


@pytest.mark.parametrize("valid", ["all", "unequal"])
def test_accumulated_parts_give_the_gradient_of_the_batch(begin, store, monkeypatch, valid):
    """Exactly so where all parts have as many valid places; else each part counts alike."""
    settings = tiny_settings(**DENSE, batch=8)
    sampler = SliceSampler(store, size=settings.size, neighbours=0.5)
    slices = sampler.draw(8, module.np.random.default_rng(0))
    batch, places = make_views(slices, settings, patch=8, generator=torch.Generator().manual_seed(0))
    places.valid[:] = True
    if valid == "unequal":
        places.valid[:4, 2:] = False
    monkeypatch.setattr(module, "CLIP", 1e9)
    gradients = []
    for parts in ([(batch, places)], list(halves(batch, places))):
        given = iter(parts)
        monkeypatch.setattr(module, "make_views", lambda *_, given=given, **__: next(given))
        training = begin(**DENSE, batch=8, accumulate=len(parts))
        training.step()
        gradients.append(
            [
                parameter.grad.clone()
                for parameter in training.student.parameters()
                if parameter.grad is not None
            ]
        )
        assert training.images == 8
    difference = max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
    largest = max(a.abs().max().item() for a in gradients[0])
    assert (difference < 1e-4 * largest) == (valid == "all")


@pytest.mark.parametrize("changes", [{}, DENSE], ids=["all terms", "dense term"])
def test_a_training_that_is_taken_up_ends_like_one_that_ran_through(begin, changes, tmp_path):
    changes = {**changes, "images": 16, "save_seconds": 3600}
    through = begin(**changes)
    through.run(None)
    assert through.share == 1
    (tmp_path / "checkpoint.pt").unlink()
    steps = iter([False, True, True, False])
    for count in (8, 12, 16):
        training = begin(**changes)
        training.run(None, stop=lambda: next(steps))
        assert (training.images, training.resumed) == (count, count > 8)
    assert_equal_weights(through, training)
    again = begin(**changes)
    again.run(None)
    assert_equal_weights(again, training)


def test_the_seed_decides(begin):
    first, same, other = (begin(**DENSE, seed=seed, warmup=0) for seed in (1, 1, 2))
    for training in (first, same, other):
        training.step()
    assert_equal_weights(first, same)
    assert not torch.equal(first.student.backbone.norm.weight, other.student.backbone.norm.weight)


def test_the_clock_can_end_a_training(begin):
    told = []
    training = begin(**DENSE, images=0, minutes=0.005)
    training.run(None, progress=lambda stage, done, total, **values: told.append((done, total, values)))
    assert 0.3 <= training.seconds < 10
    assert training.share == 1
    assert told[-1][0] == told[-1][1] == training.images
    assert told[-1][2]["seconds_left"] == 0
    assert told[-1][2]["images_per_second"] == pytest.approx(training.images / training.seconds, rel=0.3)


def test_checkpoints_come_after_the_given_time(begin, monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(module, "save_checkpoint", lambda path, state: saved.append(state["images"]))
    begin(**DENSE, images=12, save_seconds=3600).run(None)
    assert saved == [12]
    saved.clear()
    begin(**DENSE, images=12, save_seconds=0).run(None)
    assert saved == [4, 8, 12]


def test_a_training_with_other_circumstances_is_not_taken_up(begin, monkeypatch):
    begin(**DENSE, weights="abc").save()
    with pytest.raises(
        FewshotError, match=r"begun with other settings \(batch, places\); give the same .*--restart"
    ):
        begin(**DENSE, batch=8, places=8, weights="abc")
    with pytest.raises(FewshotError, match=r"begun with other start weights; .*--restart"):
        begin(**DENSE, weights="def")
    begin(**DENSE, weights="abc")


def test_a_training_on_other_studies_is_not_taken_up(begin, store, monkeypatch):
    begin(**DENSE).save()
    monkeypatch.setattr(store, "digest", "other")
    with pytest.raises(FewshotError, match=r"begun with other studies; .*--restart"):
        begin(**DENSE)


def test_a_checkpoint_of_another_network_is_refused(begin):
    begin(**DENSE).save()
    with pytest.raises(FewshotError, match="of another backbone; start again with --restart"):
        begin(start="random", **DENSE)


def poisoned(after, poison):
    """`Losses.total` that fails after some steps."""
    original, calls = Losses.total, iter(range(99))

    def total(self, terms):
        value = original(self, terms)
        return poison(value) if next(calls) >= after else value

    return total


@pytest.mark.parametrize(
    "poison",
    [
        lambda value: value * float("nan"),
        lambda value: value / 0,
        lambda value: value + (value * 0).sqrt(),  # finite, but its gradient is not
    ],
    ids=["not a number", "infinite", "gradient"],
)
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    begin, monkeypatch, tmp_path, poison
):
    training = begin(**DENSE)
    monkeypatch.setattr(Losses, "total", poisoned(2, poison))
    said = r"no longer a number after 12 images; the last good checkpoint is .*checkpoint.pt: try .*=0.00033 with --res"
    with pytest.raises(FewshotError, match=said):
        training.run(None)
    monkeypatch.undo()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["images"] == 8
    assert all(torch.isfinite(value).all() for value in state["student"].values())
    resumed = begin(**DENSE)
    resumed.step()
    assert resumed.images == 12


def test_a_loss_that_is_no_number_at_once_says_that_nothing_was_saved(begin, monkeypatch, tmp_path):
    monkeypatch.setattr(Losses, "total", poisoned(0, lambda value: value * float("nan")))
    with pytest.raises(FewshotError, match="there is no checkpoint yet"):
        begin(**DENSE).run(None)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_every_batch_hides_some_tokens(begin, monkeypatch):
    """Also one in which no crop was drawn to be masked: the head's batch norm and the other processes need them."""
    monkeypatch.setattr(batches, "MASKED", 0.0)
    training = begin()
    terms = training.step()
    assert np.isfinite(terms["ibot"])
