"""The local prototypes' own definition; what all adapters obey is in test_adapters."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fewshot.adapters import ADAPTERS, Samples
from fewshot.adapters.pixels import to_pixels
from fewshot.adapters.prototypes import local_means
from fewshot.errors import FewshotError
from tests.unit.adapters.test_adapters import DIM, clusters

NAME = "local-prototypes"


def test_similarity_is_the_softmax_weighted_mean_of_scaled_cosines():
    samples = clusters(2)
    adapter = ADAPTERS[NAME].create(DIM, 2, {"prototypes": 6, "scale": 7.0})
    adapter.fit(samples)
    mean, scale = samples.features.mean(0), samples.features.std(0, correction=0)
    maps = 3 * torch.randn(1, 3, 4, DIM)
    expected = torch.zeros(1, 3, 4, 3)
    for row in range(3):
        for column in range(4):
            direction = normalize((maps[0, row, column] - mean) / scale, dim=0)
            for kind, classes in enumerate(adapter.kinds):
                cosines = 7 * adapter.prototypes[adapter.prototype_kinds == kind] @ direction
                expected[0, row, column, classes.int().argmax()] = (cosines.softmax(0) * cosines).sum()
    ys, xs = torch.linspace(0, 2, 7), torch.linspace(0, 3, 9)
    torch.testing.assert_close(
        adapter.predict(maps, ys, xs), to_pixels(expected, ys, xs).softmax(-1), atol=1e-4, rtol=1e-3
    )


def test_a_mixed_label_needs_more_than_one_prototype():
    """Its two halves lie on opposite sides, so their mean says nothing."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * torch.randn(600, DIM, generator=generator)
    targets = torch.arange(600) // 400
    features = noise + 0.0
    features[400:500, 0] += 6
    features[500:, 0] -= 6
    features[:200, 1] += 6
    features[200:400, 1] -= 6
    possible = torch.nn.functional.one_hot(targets, 2).bool()
    samples = Samples(features, targets, torch.arange(600) % 5, possible, torch.ones(600))
    adapter = ADAPTERS[NAME].create(DIM, 1, {})
    adapter.fit(samples)
    found = adapter.predict(features[None, None], torch.zeros(1), torch.arange(600.0))[0, 0].argmax(-1)
    assert (found == targets).float().mean() > 0.95


def test_means_lie_within_slices():
    directions = normalize(torch.randn(60, 4), dim=1)
    slices = torch.arange(60) // 20
    means = local_means(directions, slices, 3, np.random.default_rng(0))
    expected = torch.stack([directions[slices == index].mean(0) for index in range(3)])
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("budget", "most"), [(12, 12), (3, 3), (2, 2), (1000, 60)])
def test_the_budget_holds_and_small_classes_give_all_their_pixels(budget, most):
    directions = normalize(torch.randn(60, 4), dim=1)
    means = local_means(directions, torch.arange(60) // 20, budget, np.random.default_rng(0))
    assert 1 <= len(means) <= most
    if budget == 1000:
        torch.testing.assert_close(means, directions)


def test_pixels_that_are_all_alike_make_one_prototype(recwarn):
    directions = normalize(torch.ones(50, 4), dim=1)
    directions[:2] = normalize(torch.eye(4)[:2], dim=1)
    means = local_means(directions, torch.zeros(50, dtype=torch.long), 8, np.random.default_rng(0))
    assert len(means) == 3
    assert not recwarn.list


def test_every_label_also_has_one_prototype_for_all_of_it():
    samples = clusters(2)
    adapter = ADAPTERS[NAME].create(DIM, 2, {"prototypes": 4})
    adapter.fit(samples)
    for label in (1, 2):
        kind = int(torch.nonzero(adapter.kinds[:, label]).flatten())
        own = adapter.prototypes[adapter.prototype_kinds == kind]
        mean = normalize(
            adapter.projection.directions(samples.features[samples.targets == label]).mean(0), dim=0
        )
        torch.testing.assert_close(own[-1], mean, atol=1e-5, rtol=1e-4)


def test_a_label_of_one_pixel_is_found_at_that_pixel():
    samples = clusters(2)
    keep = torch.cat([torch.arange(240), torch.tensor([300])])
    adapter = ADAPTERS[NAME].create(DIM, 2, {})
    adapter.fit(samples[keep])
    predicted = adapter.predict(samples.features[300][None, None, None], torch.zeros(1), torch.zeros(1))
    assert predicted[0, 0, 0].argmax() == 2


@pytest.mark.parametrize("options", [{"prototypes": 0}, {"scale": -1.0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(FewshotError, match=f"Option {next(iter(options))} of adapter local-prototypes is"):
        ADAPTERS[NAME].create(DIM, 1, options)
