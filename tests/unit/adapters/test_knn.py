"""The nearest-neighbour adapter's own definition; what all adapters obey is in test_adapters."""

import pytest
import torch
from torch.nn.functional import normalize

from fewshot.adapters import ADAPTERS, Samples
from fewshot.adapters.knn import MIN_REFERENCES, class_weights, draw_references
from fewshot.adapters.pixels import to_pixels
from fewshot.errors import FewshotError
from tests.unit.adapters.test_adapters import DIM, clusters


def fitted(samples, labels, **options):
    adapter = ADAPTERS["knn"].create(DIM, labels, options)
    adapter.fit(samples, seed=1)
    return adapter


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("prior", [0, 0.5, 1])
def test_votes_are_those_of_the_nearest_references_interpolated(labels, prior):
    samples = clusters(labels)
    adapter = fitted(samples, labels, k=5, temperature=0.2, references=60, prior=prior)
    mean, scale = samples.features.mean(0), samples.features.std(0, correction=0)
    chosen = draw_references(samples, 60, torch.Generator().manual_seed(1))
    weights = class_weights(samples, chosen, prior=prior)
    references = normalize((samples.features[chosen] - mean) / scale, dim=1)
    maps = 3 * torch.randn(1, 3, 4, DIM)
    expected = torch.zeros(1, 3, 4, labels + 1)
    for row in range(3):
        for column in range(4):
            cosines = references @ normalize((maps[0, row, column] - mean) / scale, dim=0)
            for index in cosines.argsort(descending=True)[:5]:
                vote = (cosines[index] / 0.2).exp() * weights[index]
                expected[0, row, column, samples.targets[chosen[index]]] += vote
    expected /= expected.sum(-1, keepdim=True)
    ys, xs = torch.linspace(0, 2, 7), torch.linspace(0, 3, 9)
    torch.testing.assert_close(
        adapter.predict(maps, ys, xs), to_pixels(expected, ys, xs), atol=1e-4, rtol=1e-3
    )


def test_one_neighbour_of_a_reference_is_itself():
    samples = clusters(2, per_class=30)
    adapter = fitted(samples, 2, k=1)
    predicted = adapter.predict(
        samples.features[None, None], torch.zeros(1), torch.arange(len(samples), dtype=torch.float32)
    )[0, 0]
    torch.testing.assert_close(predicted.argmax(-1), samples.targets)
    assert predicted.max(-1).values.min() == 1


def test_references_are_limited_and_shared_among_the_classes():
    samples = clusters(3, per_class=500)
    chosen = draw_references(samples, 300, torch.Generator().manual_seed(0))
    assert torch.bincount(samples.targets[chosen]).tolist() == [150, 50, 50, 50]
    assert len(chosen.unique()) == len(chosen)
    few = draw_references(samples, 1, torch.Generator().manual_seed(0))
    assert torch.bincount(samples.targets[few]).tolist() == [MIN_REFERENCES] * 4


def test_classes_weigh_by_how_often_they_occur_to_a_power():
    samples = clusters(2, per_class=40)
    samples.weights[samples.targets == 0] = 16.0
    chosen = torch.cat([torch.arange(40), torch.arange(40, 50), torch.arange(80, 120)])
    for prior, wanted in ((0, [1, 1, 1]), (0.5, [4, 1, 1]), (1, [16, 1, 1])):
        weights = class_weights(samples, chosen, prior=prior)
        of_class = torch.zeros(3).index_add_(0, samples.targets[chosen], weights)
        torch.testing.assert_close(of_class / of_class[1], torch.tensor(wanted, dtype=torch.float32))


@pytest.mark.parametrize("prior", [0, 0.5, 1])
def test_a_label_of_one_pixel_is_found_at_that_pixel(prior):
    samples = clusters(2)
    keep = torch.cat([torch.arange(240), torch.tensor([300])])
    adapter = fitted(samples[keep], 2, prior=prior)
    predicted = adapter.predict(samples.features[300][None, None, None], torch.zeros(1), torch.zeros(1))
    assert predicted[0, 0, 0].argmax() == 2


def test_the_seed_decides_which_references_are_drawn():
    samples = clusters(1)
    one, two = (ADAPTERS["knn"].create(DIM, 1, {"references": 20}) for _ in range(2))
    one.fit(samples, seed=0)
    two.fit(samples, seed=1)
    assert not torch.equal(one.references, two.references)


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}, {"prior": 1.5}, {"components": 1.5}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(FewshotError, match=f"Option {next(iter(options))} of adapter knn is"):
        ADAPTERS["knn"].create(DIM, 1, options)


def partly_labelled(labels_of_first=(1,), labels_of_second=(2,)):
    """Two templates with both labels; in each only some were drawn, the other lies in its background."""
    whole = clusters(2, per_class=200)
    first = torch.arange(len(whole)) % 2 == 0
    possible = torch.nn.functional.one_hot(whole.targets, 3).bool()
    targets = whole.targets.clone()
    for rows, drawn in ((first, labels_of_first), (~first, labels_of_second)):
        hidden = [label for label in (1, 2) if label not in drawn]
        targets[rows & torch.isin(targets, torch.tensor(hidden))] = 0
        background = rows & (targets == 0)
        possible[background] = torch.tensor([True, 1 in hidden, 2 in hidden])
    return Samples(whole.features, targets, whole.slices, possible, whole.weights)


@pytest.mark.parametrize("name", ["knn", "local-prototypes"])
@pytest.mark.parametrize("second", [(2,), (1, 2)])
def test_background_that_may_be_a_label_does_not_speak_against_it(name, second):
    """Also where no background pixel at all is certain."""
    samples = partly_labelled(labels_of_second=second)
    adapter = ADAPTERS[name].create(DIM, 2, {})
    adapter.fit(samples)
    held = clusters(2, seed=5)
    columns = torch.arange(len(held), dtype=torch.float32)
    found = adapter.predict(held.features[None, None], torch.zeros(1), columns)[0, 0].argmax(-1)
    recalls = [(found[held.targets == k] == k).float().mean().item() for k in range(3)]
    assert min(recalls) > 0.6, recalls
    taken_for_background = samples.possible.clone()
    taken_for_background[samples.targets == 0] = torch.tensor([True, False, False])
    naive = ADAPTERS[name].create(DIM, 2, {})
    naive.fit(
        Samples(samples.features, samples.targets, samples.slices, taken_for_background, samples.weights)
    )
    there = naive.predict(held.features[None, None], torch.zeros(1), columns)[0, 0].argmax(-1)
    hidden = held.targets == 1 if 1 not in second else held.targets == 2
    assert (found[hidden] == held.targets[hidden]).sum() > (there[hidden] == held.targets[hidden]).sum()
