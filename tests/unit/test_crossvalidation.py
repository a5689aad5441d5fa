"""Cross-validation: what is scored was not fitted on, and a better backbone has the better score."""

from dataclasses import replace

import numpy as np
import pytest

from fewshot import crossvalidation, pipeline
from fewshot.crossvalidation import TooFewLabelsError, cross_validate
from fewshot.errors import FewshotError
from fewshot.support import Template
from tests.unit.conftest import blobs

NAMES = {"bright": 1, "dark": 2}
FAST = {"epochs": 3, "steps": 8, "batch": 512}


def template(seed, *, slices=slice(None), names=NAMES, complete=False, values=(1, 2)):
    """A template of which some slices are labelled."""
    volume, labels = blobs(seed)
    drawn = np.zeros_like(labels)
    drawn[..., slices] = labels[..., slices] * np.isin(labels[..., slices], values)
    return Template(volume=volume, labels=drawn, names=names, complete=complete)


@pytest.fixture
def fits(monkeypatch):
    """What every fold was fitted on."""
    seen, fit = [], pipeline.fit

    def spy(templates, **arguments):
        seen.append((list(templates), arguments))
        return fit(templates, **arguments)

    monkeypatch.setattr(crossvalidation, "fit", spy)
    return seen


def run(templates, tiny, bank, **arguments):
    return cross_validate(templates, backbone=tiny, bank=bank, options=FAST, **arguments)


def test_every_template_is_left_out_once(tiny, bank, fits):
    templates = [template(seed) for seed in range(3)]
    result = run(templates, tiny, bank)
    assert result.folds == len(fits) == 3
    left_out = [{id(t) for t in templates} - {id(t) for t in fitted} for fitted, _ in fits]
    assert sorted(next(iter(one)) for one in left_out) == sorted(id(t) for t in templates)
    assert set(result.dice) == {"bright", "dark"}
    assert result.mean == pytest.approx(np.mean(list(result.dice.values())))
    assert 0.3 < result.mean < 1


def test_many_templates_are_left_out_in_five_groups(tiny, bank, fits):
    run([template(seed, slices=[3, 4]) for seed in range(7)], tiny, bank)
    assert sorted(len(fitted) for fitted, _ in fits) == [5, 5, 6, 6, 6]


@pytest.mark.parametrize("complete", [False, True])
def test_a_single_template_is_left_out_by_neighbouring_slices(tiny, bank, fits, complete):
    one = template(0, slices=slice(1, 7), complete=complete)
    result = run([one], tiny, bank)
    shown = np.flatnonzero(one.labels.any((0, 1)))
    assert result.folds == 3
    held = []
    for (fitted,), _ in fits:
        known = np.flatnonzero(fitted.labels.any((0, 1)))
        assert not fitted.complete, "slices left out would count as background"
        np.testing.assert_array_equal(fitted.labels[..., known], one.labels[..., known])
        out = np.setdiff1d(shown, known)
        assert np.all(np.diff(out) == 1)
        held += out.tolist()
    assert sorted(held) == shown.tolist()
    assert 0.3 < result.mean < 1


def test_scores_are_those_of_a_fit_on_the_others(tiny, bank):
    one, other = template(0), template(1)
    expected = []
    spec = pipeline.resolve(pipeline.DEFAULT_SPEC, [one.volume, other.volume], tiny)
    for fitted, held in ((one, other), (other, one)):
        model = pipeline.fit(
            [fitted],
            backbone=tiny,
            bank=bank,
            labels=NAMES,
            adapter="classification",
            options=FAST,
            spec=spec,
        )
        found = pipeline.predict(held.volume, model, backbone=tiny, bank=bank, components="all").labels
        expected.append(
            [dice(held.labels == value, (found == value) & held.labels.any((0, 1))) for value in (1, 2)]
        )
    result = run([one, other], tiny, bank)
    assert [result.dice["bright"], result.dice["dark"]] == pytest.approx(np.mean(expected, axis=0).tolist())


def dice(truth, found):
    return 2 * (truth & found).sum() / (truth.sum() + found.sum())


def test_the_same_templates_have_the_same_score(tiny, bank):
    templates = [template(0), template(1)]
    first = run(templates, tiny, bank)
    assert run(templates, tiny, bank) == first
    assert run(templates, tiny, bank, seed=1) != first


def test_what_is_drawn_at_random_is_not_found(tiny, bank):
    good = run([template(0), template(1)], tiny, bank).mean
    generator = np.random.default_rng(0)
    random = [
        replace(
            template(seed), labels=generator.integers(0, 3, template(seed).labels.shape).astype(np.uint16)
        )
        for seed in (0, 1)
    ]
    assert run(random, tiny, bank).mean < good - 0.1


def test_a_label_that_one_template_alone_shows_is_not_scored(tiny, bank):
    result = run([template(0), template(1, values=(1,))], tiny, bank)
    assert set(result.dice) == {"bright"}


def test_a_label_that_is_not_drawn_on_a_template_costs_it_nothing(tiny, bank):
    """It may lie there all the same; finding it there is no mistake."""
    both = [template(0), template(1)]
    result = run([*both, template(2, values=(1,))], tiny, bank, labels=["dark"])
    assert set(result.dice) == {"dark"}
    assert result.dice["dark"] > 0.3


def test_templates_without_a_common_label_are_left_out_by_slices(tiny, bank, fits):
    result = run([template(0, values=(1,)), template(1, values=(2,))], tiny, bank)
    assert set(result.dice) == {"bright", "dark"}
    assert result.folds == 3
    assert all(len(fitted) == 2 for fitted, _ in fits)


def test_only_the_labels_asked_for(tiny, bank):
    assert set(run([template(0), template(1)], tiny, bank, labels=["dark"]).dice) == {"dark"}


def test_two_slices_are_enough_and_one_is_not(tiny, bank):
    assert run([template(0, slices=[3, 4])], tiny, bank).folds == 2
    with pytest.raises(TooFewLabelsError, match="label more slices, or another study"):
        run([template(0, slices=[4])], tiny, bank)
    with pytest.raises(FewshotError):
        run([], tiny, bank)


def test_progress_reaches_the_end(tiny, bank):
    told = []
    run([template(0), template(1)], tiny, bank, progress=lambda *step, **_: told.append(step))
    assert ("folds", 0, 2) in told
    assert told[-1] == ("folds", 2, 2)
    assert "features" in {stage for stage, *_ in told}
