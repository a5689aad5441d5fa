"""What templates themselves say about weight, blur and the quality to expect."""

from dataclasses import replace

import numpy as np
import pytest

from fewshot import auto, pipeline
from fewshot.adapters import ADAPTERS
from fewshot.adapters.auto import AutoAdapter
from fewshot.auto import BLURS, GAIN, WEIGHTS, build_atlas, choose, locate
from fewshot.features import load_backbone
from fewshot.support import Template, collect_samples
from fewshot.volumes import SliceSpec, SliceStack, Volume
from tests.unit.atlas.bodies import dense, dice, other_patient, study

NAMES = {"bright": 1, "dark": 2, "small": 3}
SHAPE, AFFINE = (32, 32, 10), np.diag([3.0, 3.0, 6.0, 1.0])


@pytest.fixture(scope="module")
def handmade():
    return load_backbone("handmade", device="cpu")


def square_study(name, *, at, contrast, seed, body=True):
    """A square bar in a body; ``at`` its corner, ``contrast`` its brightness above the noise."""
    generator = np.random.default_rng(seed)
    x, y, _ = np.indices(SHAPE)
    image = 15 * generator.standard_normal(SHAPE)
    if body:
        image += 60 * (((x - 16) / 14) ** 2 + ((y - 16) / 12) ** 2 < 1) + 40 * (x > 22) * (y > 12)
    inside = (x >= at[0]) & (x < at[0] + 8) & (y >= at[1]) & (y < at[1] + 8)
    image[inside] += contrast
    return Template(
        Volume(image.astype(np.float32), AFFINE, "MR", name), inside.astype(np.uint16), {"bar": 1}, True
    )


def run(templates, handmade, bank, labels=("bar",), seed=0, **options):
    spec = pipeline.resolve(SliceSpec(size=64), [template.volume for template in templates], handmade)
    around = {"spec": spec, "backbone": handmade, "bank": bank}
    samples = collect_samples(templates, list(labels), hard=True, seed=seed, **around)
    adapter = ADAPTERS["auto"].create(handmade.dim, len(labels), {"epochs": 4, **options})
    seen = []
    chosen, found = choose(
        adapter, templates, list(labels), samples, seed=seed, **around,
        progress=lambda *step, **_: seen.append(step),
    )  # fmt: skip
    return adapter.options, chosen, found, seen


def test_where_place_says_nothing_appearance_gets_the_weight(handmade, bank):
    """Bars that are plain to see, but lie anywhere."""
    templates = [
        square_study("one", at=(5, 6), contrast=250, seed=0),
        square_study("two", at=(18, 17), contrast=250, seed=1),
    ]
    assert not (templates[0].labels & templates[1].labels).any()
    _, chosen, found, _ = run(templates, handmade, bank)
    assert chosen.weight == max(WEIGHTS)
    assert found["expected_dice"] > 0.5
    assert found["other_patients"] == 1
    assert found["folds"] == 2


def test_where_appearance_says_nothing_place_gets_the_weight(handmade, bank):
    """Bars that cannot be seen, always in the same place of the body."""
    templates = [square_study(str(seed), at=(9, 12), contrast=0, seed=seed) for seed in (0, 1)]
    _, chosen, found, _ = run(templates, handmade, bank)
    assert chosen.weight <= 0.35
    assert found["expected_dice"] > 0.6


def test_a_choice_is_only_made_if_wanted_and_worth_it(handmade, bank, monkeypatch):
    templates = [square_study(str(seed), at=(9, 12), contrast=0, seed=seed) for seed in (0, 1)]
    given, kept, found, _ = run(templates, handmade, bank, choose=False, weight=1.1, blur=0.2)
    assert kept == given
    assert 0 <= found["expected_dice"] <= 1
    monkeypatch.setattr(auto, "GAIN", 2.0)
    given, kept, _, _ = run(templates, handmade, bank)
    assert kept == given
    assert 0 < GAIN < 0.05


def test_the_same_seed_makes_the_same_choice(handmade, bank):
    templates = [square_study(str(seed), at=(9, 12), contrast=40, seed=seed) for seed in (0, 1)]
    first, second = (run(templates, handmade, bank, seed=3)[1:3] for _ in range(2))
    assert first == second


def test_a_single_template_leaves_the_defaults_and_says_so(handmade, bank):
    given, chosen, found, seen = run([square_study("one", at=(9, 12), contrast=200, seed=0)], handmade, bank)
    assert chosen == given
    assert found["other_patients"] == 0
    assert found["folds"] == 3
    assert 0.5 < found["expected_dice"] <= 1
    assert ("folds", 0, 3) in seen
    assert seen[-1] == ("folds", 3, 3)


def sparse(template, slices):
    kept = np.zeros_like(template.labels)
    kept[:, :, slices] = template.labels[:, :, slices]
    return replace(template, labels=kept, complete=False)


def test_one_labelled_slice_tells_nothing(handmade, bank):
    one = sparse(square_study("one", at=(9, 12), contrast=200, seed=0), [4])
    given, chosen, found, _ = run([one], handmade, bank)
    assert chosen == given
    assert found == {}


def test_too_few_labelled_slices_promise_nothing(handmade, bank, monkeypatch):
    one = sparse(square_study("one", at=(9, 12), contrast=200, seed=0), [1, 4, 6, 8])
    given, chosen, found, _ = run([one], handmade, bank)
    assert chosen == given
    assert found == {}
    monkeypatch.setattr(auto, "FEWEST_SLICES", 4)
    _, _, found, _ = run([one], handmade, bank)
    assert 0 <= found["expected_dice"] <= 1
    assert found["other_patients"] == 0


def test_a_label_that_one_template_alone_shows_does_not_spoil_the_score(handmade, bank):
    """Left out with its template, nobody could have learnt it."""
    plain = [square_study(str(seed), at=(9, 12), contrast=250, seed=seed) for seed in (0, 1)]
    extra = plain[0].labels.copy()
    extra[2:6, 20:25] = 2
    templates = [replace(plain[0], labels=extra, names={"bar": 1, "other": 2}), plain[1]]
    assert run(templates, handmade, bank, labels=("bar", "other"))[2]["expected_dice"] > 0.6


def test_templates_without_a_common_label_have_no_score(handmade, bank):
    one = square_study("one", at=(9, 12), contrast=250, seed=0)
    two = replace(square_study("two", at=(9, 12), contrast=250, seed=1), names={"other": 1})
    given, chosen, found, _ = run([one, two], handmade, bank, labels=("bar", "other"))
    assert chosen == given
    assert "expected_dice" not in found


@pytest.mark.parametrize("complete", [True, False])
def test_the_atlas_knows_what_was_labelled(complete):
    volume, labels, _ = study()
    some = np.where(np.isin(np.arange(labels.shape[2]), [8, 11, 14]), labels, 0)
    names = {"bright": 1, "dark": 2, "unwanted": 3}
    spec = SliceSpec(plane="axial", window="percentile", size=32)
    atlas = build_atlas([Template(volume, some, names, complete)], ["dark", "absent", "bright"], spec, 8)
    (of,) = atlas.templates
    np.testing.assert_array_equal(of.classes, np.choose(some, [0, 3, 1, 0]))
    np.testing.assert_array_equal(of.labelled, complete | np.isin(np.arange(24), [8, 11, 14]))
    assert of.drawn.tolist() == [True, False, True]
    assert of.classes.dtype == np.uint16


def test_labelled_slices_of_a_volume_stored_upside_down():
    volume, labels, _ = study(turn=np.diag([1.0, 1, -1]))
    some = np.where(np.isin(np.arange(24), [3, 9, 10]), labels, 0)
    spec = SliceSpec(plane="axial", window="percentile", size=32)
    (of,) = build_atlas([Template(volume, some, NAMES)], list(NAMES), spec, 8).templates
    np.testing.assert_array_equal(of.labelled, (of.classes > 0).any((0, 1)))


def test_blur_is_measured_in_radii_of_each_label():
    volume, labels, _ = study()
    spec = SliceSpec(plane="axial", window="percentile", size=32)
    atlas = build_atlas([Template(volume, labels, NAMES, True)], list(NAMES), spec, 8)
    query, truth, _ = other_patient()
    stack = SliceStack(query, spec, patch=8)
    sharp, similarity = locate(atlas, stack, BLURS[0])
    wide, _ = locate(atlas, stack, 1.0)
    assert 0.5 < similarity <= 1
    sharp, wide = dense(sharp, stack), dense(wide, stack)
    assert dice(sharp.argmax(-1) == 1, truth == 1) > 0.75
    for label in (1, 2, 3):
        assert np.count_nonzero(wide[..., label]) > 1.5 * np.count_nonzero(sharp[..., label])
        assert wide[..., label].max() < sharp[..., label].max() <= 1
    assert AutoAdapter.Options().blur in BLURS
    assert AutoAdapter.Options().weight in WEIGHTS
