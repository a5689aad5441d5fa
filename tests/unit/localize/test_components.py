"""Stray pixels go, structures stay."""

import numpy as np
import pytest

from fewshot.localize import count_parts, keep_components


@pytest.fixture
def two_lungs_and_a_speck():
    labels = np.zeros((20, 20, 10), np.uint16)
    labels[2:7, 5:15, 2:8] = 1
    labels[12:17, 5:15, 2:8] = 1
    labels[10, 1, 1] = 1
    labels[10:12, 17:19, 4] = 2
    return labels


def test_parts_are_counted_without_splinters(two_lungs_and_a_speck):
    assert count_parts(two_lungs_and_a_speck == 1) == 2
    assert count_parts(two_lungs_and_a_speck == 2) == 1
    assert count_parts(np.zeros((3, 3, 3), bool)) == 0


@pytest.mark.parametrize(("parts", "voxels"), [(1, 300), (2, 600), (None, 601)])
def test_the_largest_parts_stay(two_lungs_and_a_speck, parts, voxels):
    cleaned = keep_components(two_lungs_and_a_speck, [parts, 1], voxel_ml=0.001)
    assert (cleaned == 1).sum() == voxels
    assert (cleaned == 2).sum() == 4
    assert (two_lungs_and_a_speck == 1).sum() == 601, "the input is not changed"


def test_small_parts_go_by_volume(two_lungs_and_a_speck):
    cleaned = keep_components(two_lungs_and_a_speck, [None, None], voxel_ml=0.001, min_ml=0.01)
    assert (cleaned == 1).sum() == 600
    assert not (cleaned == 2).any()


def test_touching_labels_are_kept_apart():
    labels = np.ones((4, 4, 1), np.uint16)
    labels[2:] = 2
    assert np.array_equal(keep_components(labels, [1, 1], voxel_ml=1), labels)
