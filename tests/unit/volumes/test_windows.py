"""One window for a whole volume: no slice is stretched on its own."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.volumes import WINDOWS, SliceSpec, SliceStack, Volume
from fewshot.volumes.windows import auto_window, normalise, window_limits

AFFINE = np.eye(4)


def volume(array: np.ndarray, modality: str = "MR") -> Volume:
    return Volume(array.astype(np.float32), AFFINE, modality)


def stack(array: np.ndarray, window: str = "auto", modality: str = "MR") -> SliceStack:
    return SliceStack(volume(array, modality), SliceSpec(window=window, size=16), patch=4)


@pytest.mark.parametrize("window", [name for name in WINDOWS if name.startswith("ct")])
def test_hounsfield_windows_do_not_depend_on_the_volume(window: str) -> None:
    low, high, _ = WINDOWS[window]
    for array in (np.zeros((2, 2, 2)), np.linspace(-1000, 3000, 8).reshape(2, 2, 2)):
        assert window_limits(volume(array), window) == (low, high)


def test_the_window_maps_its_ends_to_black_and_white() -> None:
    np.testing.assert_allclose(
        normalise(np.array([-500.0, -160, 40, 240, 900]), (-160, 240)), [0, 0, 0.5, 1, 1]
    )


@pytest.mark.parametrize(
    ("modality", "lowest", "window"),
    [
        ("CT", -1000, "ct-soft"),
        ("CT", 0, "percentile"),
        ("MR", -1000, "percentile"),
        ("", -1000, "percentile"),
    ],
)
def test_auto_uses_hounsfield_units_only_where_there_are_some(
    modality: str, lowest: int, window: str
) -> None:
    array = np.array([[[lowest, 100.0]]])
    assert auto_window(volume(array, modality)) == window
    assert stack(array, modality=modality).spec.window == window


def test_percentiles_leave_out_the_brightest_outliers() -> None:
    array = np.zeros((30, 30, 30))
    array[:, :, :20] = np.random.default_rng(0).uniform(0, 100, (30, 30, 20))
    array[0, 0, 0] = 1e6
    low, high = window_limits(volume(array), "percentile")
    assert low == 0
    assert 95 < high <= 100


def test_a_small_bright_object_is_not_lost_beyond_the_percentiles() -> None:
    array = np.zeros((20, 20, 20))
    array[10, 10, 10] = 7
    assert window_limits(volume(array), "percentile") == (0, 7)


def test_an_empty_slice_stays_empty() -> None:
    array = np.random.default_rng(0).uniform(0, 1000, (16, 16, 5))
    array[:, :, 2] = np.random.default_rng(1).uniform(0, 10, (16, 16))  # noise of an empty slice
    images = stack(array).images
    assert images[2].max() < 0.02
    assert images[1].max() > 0.9


def test_a_slice_looks_the_same_whichever_slices_surround_it() -> None:
    rng = np.random.default_rng(0)
    array = rng.uniform(-1000, 500, (16, 16, 6))
    other = array.copy()
    other[:, :, :3] = rng.uniform(-1000, 3000, (16, 16, 3))
    np.testing.assert_array_equal(
        stack(array, "ct-soft").images[4], stack(other, "ct-soft").images[4], err_msg="CT"
    )
    turned = array[:, :, ::-1].copy()  # the same values in another order have the same percentiles
    np.testing.assert_array_equal(stack(array).images[4], stack(turned).images[1], err_msg="percentile")


def test_brightness_order_is_kept_across_slices() -> None:
    array = np.stack([np.full((16, 16), value) for value in (10.0, 20, 30, 40)], axis=2)
    array[0, 0, :] = 0
    means = stack(array).images.mean(axis=(1, 2))
    assert (np.diff(means) > 0).all()


def test_air_slices_are_flagged_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(-1000, 20, (16, 16, 4))
    array[4:8, 4:8, 1] = 40
    array[4, 4, 2] = 40  # a single voxel counts
    array[:, :, 3] = 40  # the same tissue everywhere: nothing to tell apart
    assert stack(array, modality="CT").air.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("modality", "value"), [("MR", 5.0), ("MR", 0.0), ("CT", -1000.0), ("CT", 40.0), ("", -3.0)]
)
def test_a_constant_volume_is_all_air(modality: str, value: float) -> None:
    constant = stack(np.full((5, 6, 7), value), modality=modality)
    assert constant.air.all()
    assert np.isfinite(constant.images).all()


def test_values_stay_within_zero_and_one() -> None:
    images = stack(np.random.default_rng(0).normal(0, 1000, (40, 30, 5))).images
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
