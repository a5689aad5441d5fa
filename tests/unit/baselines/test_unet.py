"""A small U-Net trained from scratch on made-up volumes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fewshot.baselines import create_baseline
from fewshot.baselines.patches import PatchSource, Study
from fewshot.baselines.unet import strides
from fewshot.baselines.unet_training import dice_and_cross_entropy, marginal, train
from fewshot.errors import FewshotError
from fewshot.progress import silent
from fewshot.support import Template
from fewshot.volumes import Volume

SMALL = {"channels": [8, 16, 16, 32], "seconds": 10_000, "patch_voxels": 8192, "rate": 3e-3}


def ball(shape=(24, 24, 20), centre=(11, 13, 10), *, seed=0, name="ball", spacing=(1, 1, 1), calibrated=True):
    """A bright ball in noise, and its label 5."""
    x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    radii = [n / 4 if n > 1 else 1 for n in shape]
    labels = (sum(((axis - c) / r) ** 2 for axis, c, r in zip(x, centre, radii, strict=True)) < 1).astype(
        np.uint16
    ) * 5
    image = 100 + 8 * np.random.default_rng(seed).standard_normal(shape) + 20.0 * labels
    volume = Volume(
        image.astype(np.float32), np.diag([*spacing, 1.0]), modality="MR", name=name, calibrated=calibrated
    )
    return volume, labels


def fitted(*templates, steps=60, **options):
    baseline = create_baseline("unet", {**SMALL, "steps": steps, **options}, device="cpu")
    return baseline, baseline.fit(list(templates), {"ball": 9}, seed=3)


def complete(*given, **settings):
    return Template(*ball(*given, **settings), {"ball": 5}, complete=True)


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture(scope="module")
def trained():
    return fitted(complete())


def test_learns_a_bright_ball(trained):
    baseline, scores = trained
    query, truth = ball(centre=(14, 9, 8), seed=1)
    found = baseline.predict(query)
    assert dice(found.labels == 9, truth > 0) > 0.7
    assert scores["steps"] == 60
    assert scores["planned_steps"] == 60
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float16
    assert found.probabilities.shape == (2, *query.shape)
    assert np.allclose(found.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    assert set(found.timings) == {"network", "total"}
    assert found.confidence["ball"] > 0.5


def test_finds_one_part_as_the_template_has(trained):
    baseline, _ = trained
    one, first = ball((24, 48, 20), centre=(12, 12, 10), seed=4)
    two, second = ball((24, 48, 20), centre=(12, 40, 10), seed=4)
    both = Volume(np.maximum(one.array, two.array), np.eye(4), modality="MR", name="two")
    from fewshot.localize import count_parts

    labels = baseline.predict(both).labels
    assert (first | second).any()
    assert count_parts(labels == 9) == 1


def test_another_spacing_and_shape(trained):
    baseline, _ = trained
    query, truth = ball((40, 44, 40), centre=(22, 20, 18), spacing=(0.6, 0.55, 0.5))
    found = baseline.predict(query)
    assert found.labels.shape == query.shape
    assert dice(found.labels == 9, truth > 0) > 0.6


def test_same_seed_and_steps_same_weights_whatever_the_time():
    support = complete(shape=(16, 16, 16), centre=(8, 8, 8))
    first, second = (fitted(support, steps=14, seconds=seconds)[0] for seconds in (5000, 9000))
    for one, other in zip(first._network.parameters(), second._network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_single_slices():
    baseline, _ = fitted(complete((48, 40, 1), (20, 22, 0), calibrated=False), steps=60)
    assert baseline._flat
    query, truth = ball((48, 40, 1), (28, 16, 0), seed=5, calibrated=False)
    assert dice(baseline.predict(query).labels == 9, truth > 0) > 0.7
    larger, truth = ball((96, 80, 1), (50, 40, 0), seed=5, calibrated=False)
    assert dice(baseline.predict(larger).labels == 9, truth > 0) > 0.6


def test_thick_slices_are_seen_one_by_one():
    baseline, _ = fitted(complete((32, 32, 20), (16, 16, 10), spacing=(1, 1, 6)), steps=2)
    assert baseline._flat
    baseline, _ = fitted(complete((32, 32, 20), (16, 16, 10), spacing=(1, 1, 2)), steps=2)
    assert not baseline._flat


def test_constant_image_is_said_and_empty(trained):
    query = Volume(np.full((20, 20, 20), 5.0, np.float32), np.eye(4), modality="MR", name="flat")
    found = trained[0].predict(query)
    assert any("constant" in note for note in found.notes)
    assert not found.labels.any()
    assert found.confidence == {"ball": None}


def test_progress_counts_to_a_hundred():
    calls = []
    baseline = create_baseline("unet", {**SMALL, "steps": 4}, device="cpu")
    baseline.fit(
        [complete(shape=(16, 16, 16), centre=(8, 8, 8))],
        {"ball": 9},
        progress=lambda *given, **_: calls.append(given),
    )
    assert calls == [("train", 25, 100), ("train", 50, 100), ("train", 75, 100), ("train", 100, 100)]


@pytest.fixture
def tiny():
    """A source of flat patches, and a network of one layer."""
    volume, labels = ball((32, 32, 1), (16, 16, 0))
    study = Study(
        volume.array.transpose(2, 0, 1)[None],
        (labels > 0).transpose(2, 0, 1).astype(np.int16),
        np.zeros(2, bool),
    )
    return PatchSource([study], (1, 16, 16), seed=0), torch.nn.Conv2d(1, 2, 1)


def ticking(step):
    times = itertools.count()
    return lambda: next(times) * step


@pytest.mark.parametrize(("steps", "seconds"), [(1_000_000, 30.0), (12, 30.0)])
def test_steps_follow_from_the_time(tiny, steps, seconds):
    """Each step takes one second of a made-up clock."""
    source, network = tiny
    scores = train(
        network,
        source,
        batch=2,
        seconds=seconds,
        steps=steps,
        rate=1e-3,
        dtype=torch.float32,
        progress=silent,
        clock=ticking(1.0),
    )
    assert scores["steps"] == scores["planned_steps"]
    assert scores["steps"] == 12 if steps == 12 else 27 <= scores["steps"] <= 32


def test_a_machine_that_gets_slow_is_not_waited_for(tiny):
    source, network = tiny
    ticks = itertools.chain(np.arange(16), 15 + np.arange(1, 1000) * 9.0)
    scores = train(
        network,
        source,
        batch=1,
        seconds=40.0,
        steps=1000,
        rate=1e-3,
        dtype=torch.float32,
        progress=silent,
        clock=lambda: float(next(ticks)),
    )
    assert scores["steps"] < 25 < scores["planned_steps"]


def test_unknown_voxels_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    classes = torch.randint(0, 3, (2, 6, 6), generator=generator)
    classes[:, 3:] = -1
    drawn = torch.zeros(2, 3, dtype=torch.bool)
    loss = dice_and_cross_entropy(logits, classes, drawn)
    other = logits.clone()
    other[:, :, 3:] = 9 * torch.randn(2, 3, 3, 6, generator=generator)
    assert torch.equal(dice_and_cross_entropy(other, classes, drawn), loss)
    other[:, :, :3] += torch.tensor([0.0, 2.0, 0.0])[:, None, None]
    assert not torch.isclose(dice_and_cross_entropy(other, classes, drawn), loss)


def test_undrawn_labels_count_as_background():
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))[..., None, None]
    joined = marginal(logits, torch.tensor([[False, False, True]])).softmax(1)
    assert torch.allclose(joined.flatten(), torch.tensor([0.5, 0.5, 0.0]))
    # a sure finding of the undrawn label on background costs nothing
    sure = torch.tensor([[0.0, 0.0, 20.0]])[..., None, None]
    background = torch.zeros(1, 1, 1, dtype=torch.long)
    hidden = dice_and_cross_entropy(sure, background, torch.tensor([[False, False, True]]))
    plain = dice_and_cross_entropy(sure, background, torch.zeros(1, 3, dtype=torch.bool))
    assert hidden < 1e-3 < 5 < plain


def test_patches_are_balanced_and_know_what_is_unknown():
    volume, labels = ball((40, 40, 40), (8, 8, 8))
    classes = (labels > 0).astype(np.int16)
    classes[30:] = -1
    source = PatchSource([Study(volume.array[None], classes, np.zeros(2, bool))], (16, 16, 16), seed=0)
    images, targets, undrawn = source.batch(12)
    assert images.shape == (12, 1, 16, 16, 16)
    assert targets.shape == (12, 16, 16, 16)
    assert set(targets.unique().tolist()) <= {-1, 0, 1}
    assert sum(bool((target == 1).any()) for target in targets) >= 6
    assert undrawn.shape == (12, 2)
    again = PatchSource(source.studies, (16, 16, 16), seed=0).batch(12)
    assert torch.equal(images, again[0])
    assert torch.equal(targets, again[1])


def test_partly_labelled_template_learns():
    volume, labels = ball()
    kept = np.zeros_like(labels)
    kept[..., 8:12] = labels[..., 8:12]
    baseline, _ = fitted(Template(volume, kept, {"ball": 5}), steps=60)
    query, truth = ball(centre=(13, 10, 9), seed=2)
    # slices without ball were unknown, so nothing is promised about those
    shown = truth.any((0, 1))
    assert dice((baseline.predict(query).labels == 9)[..., shown], truth[..., shown] > 0) > 0.7


def test_strides_stop_where_an_axis_is_short():
    assert strides((32, 8, 4), 3) == [(2, 2, 1), (2, 1, 1), (2, 1, 1)]


def test_bad_input_is_refused(monkeypatch):
    with pytest.raises(FewshotError, match="No template shows tail"):
        create_baseline("unet", device="cpu").fit([complete()], {"tail": 1})
    with pytest.raises(FewshotError, match="seconds"):
        create_baseline("unet", {"seconds": -1})
    monkeypatch.setitem(__import__("sys").modules, "monai", None)
    with pytest.raises(FewshotError, match="MONAI"):
        create_baseline("unet", device="cpu").fit([complete()], {"ball": 1})
