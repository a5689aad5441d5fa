"""Changes of grey values: within range, repeatable, CT windows for CT alone."""

import pytest
import torch

from fewshot.pretraining.intensity import change_intensities, ct_windows
from fewshot.volumes import WINDOWS

BATCH = 32
NO_CT = torch.zeros(BATCH, dtype=torch.bool)
SOFT = torch.tensor([WINDOWS["ct-soft"][:2]]).expand(BATCH, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images():
    return torch.rand(BATCH, 1, 24, 24, generator=generator(5))


@pytest.mark.parametrize("value", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("hounsfield", [True, False])
def test_values_stay_finite_and_in_range(value, hounsfield):
    given = images() if value is None else torch.full((BATCH, 1, 24, 24), value)
    windows = ct_windows(BATCH, generator())
    changed = change_intensities(given, torch.full((BATCH,), hounsfield), windows, generator(1))
    assert changed.shape == given.shape
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_the_same_seed_gives_the_same_changes():
    first, again, other = (change_intensities(images(), NO_CT, SOFT, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_images_are_changed_one_by_one():
    same = images()[:1].expand(BATCH, -1, -1, -1)
    changed = change_intensities(same, NO_CT, SOFT, generator())
    assert (changed[0] - changed[1:]).abs().flatten(1).mean(1).min() > 1e-3


def test_windows_are_for_ct_alone():
    half = torch.arange(BATCH) % 2 == 0
    lung = torch.tensor([WINDOWS["ct-lung"][:2]]).expand(BATCH, 2)
    soft, other = (change_intensities(images(), half, windows, generator()) for windows in (SOFT, lung))
    assert torch.equal(soft[~half], other[~half])
    assert ((soft - other)[half].abs().flatten(1).mean(1) > 0.05).all()


def test_a_soft_tissue_window_spreads_soft_tissue():
    """Half of the grey values of a crop in the wide window lie beyond the soft-tissue window."""
    values = torch.linspace(-1000, 1000, 24 * 24).view(1, 1, 24, 24).expand(BATCH, -1, -1, -1)
    changed = change_intensities((values + 1000) / 2000, ~NO_CT, SOFT, generator())
    tissue = (values > 0) & (values < 100)
    spread = [
        torch.where(tissue, image, torch.nan).nan_to_num().std()
        for image in (changed, (values + 1000) / 2000)
    ]
    assert spread[0] > spread[1]
    inverted = changed[:, 0, 0, 0] > changed[:, 0, -1, -1]
    beyond = torch.where(
        inverted[:, None], 1 - changed[:, 0, 0], changed[:, 0, 0]
    )  # first row: below -900 HU
    assert beyond.mean() < 0.25


def test_most_windows_are_the_one_of_inference():
    windows = ct_windows(400, generator())
    soft = (windows == torch.tensor(WINDOWS["ct-soft"][:2])).all(1).float().mean()
    assert 0.5 < soft < 0.7
    assert (windows[:, 1] - windows[:, 0] >= 250).all()
