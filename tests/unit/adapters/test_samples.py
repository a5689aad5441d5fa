"""The hold-out and the class balance."""

import pytest
import torch

from fewshot.adapters import Samples
from fewshot.adapters.samples import balanced_indices


def samples(targets, slices):
    targets, slices = torch.tensor(targets), torch.tensor(slices)
    possible = torch.nn.functional.one_hot(targets, int(targets.max()) + 1).bool()
    return Samples(torch.randn(len(targets), 3), targets, slices, possible, torch.ones(len(targets)))


def test_with_enough_slices_whole_slices_are_held_out():
    pool = samples([0, 1] * 100, [i // 10 for i in range(200)])
    fitted, held = pool.split(torch.Generator().manual_seed(0))
    assert not set(fitted.slices.tolist()) & set(held.slices.tolist())
    assert len(held) == 40


def test_a_label_on_one_slice_only_stays_in_the_fitted_part():
    pool = samples([0] * 90 + [1] * 10, [i % 9 for i in range(90)] + [4] * 10)
    for seed in range(10):
        fitted, held = pool.split(torch.Generator().manual_seed(seed))
        assert (fitted.targets == 1).any()
        assert len(held)


def test_a_label_on_one_slice_is_also_in_the_held_out_part():
    """Else accuracy would be that of the background alone."""
    pool = samples([0] * 190 + [1] * 10, [i % 19 for i in range(190)] + [4] * 10)
    for seed in range(5):
        fitted, held = pool.split(torch.Generator().manual_seed(seed))
        assert set(fitted.targets.tolist()) == set(held.targets.tolist()) == {0, 1}


def test_pixels_of_doubtful_class_are_not_certain():
    pool = samples([0, 0, 1], [0, 1, 2])
    pool.possible[1, 1] = True
    assert pool.certain().targets.tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_with_few_slices_pixels_of_every_class_are_held_out(seed):
    pool = samples([0] * 60 + [1] * 20, [i % 2 for i in range(80)])
    fitted, held = pool.split(torch.Generator().manual_seed(seed))
    assert len(fitted) + len(held) == 80
    assert (held.targets == 0).sum() == 12
    assert (held.targets == 1).sum() == 4


def test_background_weighs_as_much_as_all_labels_together():
    targets = torch.tensor([0] * 500 + [1] * 40 + [2] * 7)
    index = balanced_indices(targets, torch.Generator().manual_seed(0), limit=100)
    assert torch.bincount(targets[index]).tolist() == [80, 40, 40]
