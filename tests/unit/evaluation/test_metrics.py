"""Scores against hand-computed cases, against MONAI, and under geometry that must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot.evaluation.metrics import LabelScores, label_scores

LABELS = {"a": 1, "b": 5}
maps = arrays(np.uint16, (4, 5, 3), elements=st.sampled_from([0, 1, 5, 9]))


def box(shape: tuple[int, int, int], value: int, *ranges: tuple[int, int]) -> np.ndarray:
    """A label map with one box of a value."""
    labels = np.zeros(shape, np.uint16)
    labels[tuple(slice(*r) for r in ranges)] = value
    return labels


def test_two_overlapping_boxes() -> None:
    """4 x 4 x 4 voxels against the same box two voxels further in x: 32 shared, 64 + 64 together."""
    truth = box((10, 10, 10), 1, (0, 4), (0, 4), (0, 4))
    predicted = box((10, 10, 10), 1, (2, 6), (0, 4), (0, 4))
    scores = label_scores(truth, predicted, {"a": 1}, affine=np.diag([0.5, 2.0, 5.0, 1.0]))["a"]
    assert scores == LabelScores(
        iou=pytest.approx(32 / 96),
        dice=pytest.approx(0.5),
        distance_mm=pytest.approx(1.0),
        distance_px=pytest.approx(2.0),
        hit_10px=True,
        false_positive_slices=0,
        slices_without_label=6,
        truth_ml=pytest.approx(64 * 5 / 1000),
        predicted_ml=pytest.approx(64 * 5 / 1000),
    )


def test_distance_counts_voxels_of_each_axis_and_millimetres_through_an_oblique_affine() -> None:
    """Three voxels in x and four in z: five pixels; in mm the lengths of the rotated steps."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [2.0, 1.0, 0.5]
    truth, predicted = box((9, 9, 9), 1, (1, 2), (3, 4), (2, 3)), box((9, 9, 9), 1, (4, 5), (3, 4), (6, 7))
    scores = label_scores(truth, predicted, {"a": 1}, affine=affine)["a"]
    assert scores.distance_px == pytest.approx(5.0)
    assert scores.distance_mm == pytest.approx(np.hypot(3 * 2.0, 4 * 0.5))


@pytest.mark.parametrize(("shift", "hit"), [(9, True), (10, False)])
def test_a_hit_is_below_ten_pixels(shift: int, hit: bool) -> None:
    """Exactly ten pixels is a miss."""
    truth = box((12, 1, 1), 1, (0, 1), (0, 1), (0, 1))
    scores = label_scores(truth, np.roll(truth, shift, axis=0), {"a": 1}, affine=np.eye(4))["a"]
    assert (scores.distance_px, scores.hit_10px) == (shift, hit)


def test_a_label_only_in_the_truth_is_a_miss_without_a_distance() -> None:
    """Nothing was predicted: no overlap, no landmark found."""
    truth = box((3, 3, 3), 1, (0, 2), (0, 2), (0, 2))
    scores = label_scores(truth, np.zeros_like(truth), {"a": 1}, affine=np.eye(4))["a"]
    assert (scores.iou, scores.dice, scores.hit_10px) == (0.0, 0.0, False)
    assert (scores.distance_mm, scores.distance_px) == (None, None)
    assert (scores.truth_ml, scores.predicted_ml) == (pytest.approx(0.008), 0.0)


def test_a_label_only_in_the_prediction_counts_through_its_slices_alone() -> None:
    """Overlap is not defined without a truth, but every slice of it is a false positive."""
    predicted = box((3, 3, 6), 1, (0, 2), (0, 2), (1, 5))
    scores = label_scores(np.zeros_like(predicted), predicted, {"a": 1}, affine=np.eye(4))["a"]
    assert scores.dice is scores.iou is scores.distance_px is scores.distance_mm is scores.hit_10px is None
    assert (scores.false_positive_slices, scores.slices_without_label) == (4, 6)
    assert scores.predicted_ml == pytest.approx(0.016)


def test_a_label_in_neither_is_undefined() -> None:
    """A label that is rightly not found has no score, and all its slices are true negatives."""
    scores = label_scores(np.zeros((2, 2, 4), int), np.zeros((2, 2, 4), int), {"a": 1}, affine=np.eye(4))["a"]
    assert scores == LabelScores(None, None, None, None, None, 0, 4, 0.0, 0.0)


@pytest.mark.parametrize(("axis", "false_positive", "without"), [(0, 1, 7), (1, 2, 6), (2, 3, 5)])
def test_false_positive_slices_follow_the_slice_axis(axis: int, false_positive: int, without: int) -> None:
    """A truth of 1 x 2 x 3 voxels and the same box, diagonally beside it."""
    truth = box((8, 8, 8), 1, (0, 1), (0, 2), (0, 3))
    predicted = box((8, 8, 8), 1, (1, 2), (2, 4), (3, 6))
    scores = label_scores(truth, predicted, {"a": 1}, affine=np.eye(4), slice_axis=axis)["a"]
    assert (scores.false_positive_slices, scores.slices_without_label) == (false_positive, without)


def test_without_known_spacing_there_are_pixels_but_no_millimetres() -> None:
    """A photograph has no scale."""
    truth = box((5, 5, 1), 255, (0, 2), (0, 2), (0, 1))
    scores = label_scores(
        truth, np.roll(truth, 1, axis=0), {"lungs": 255}, affine=np.eye(4), calibrated=False
    )["lungs"]
    assert (scores.distance_mm, scores.truth_ml, scores.predicted_ml) == (None, None, None)
    assert scores.distance_px == pytest.approx(1.0)


def test_maps_on_two_grids_are_refused() -> None:
    """A transposed prediction must never be scored."""
    with pytest.raises(ValueError, match="one grid"):
        label_scores(np.zeros((2, 3, 4), int), np.zeros((3, 2, 4), int), LABELS, affine=np.eye(4))


@settings(deadline=None, max_examples=50)
@given(truth=maps, predicted=maps)
def test_dice_and_iou_are_monais(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Labels are scored one against the rest, values outside the dictionary as background."""
    import torch
    from monai.metrics import compute_dice, compute_iou

    scores = label_scores(truth, predicted, LABELS, affine=np.eye(4))
    for name, value in LABELS.items():
        masks = [torch.as_tensor((x == value)[None, None].astype(np.float32)) for x in (predicted, truth)]
        if not (truth == value).any():
            assert scores[name].dice is None
            continue
        assert scores[name].dice == pytest.approx(float(compute_dice(*masks, ignore_empty=False)), abs=1e-6)
        assert scores[name].iou == pytest.approx(float(compute_iou(*masks, ignore_empty=False)), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(truth=maps, predicted=maps, order=st.permutations([0, 1, 2]))
def test_scores_do_not_depend_on_the_order_of_the_axes(
    truth: np.ndarray, predicted: np.ndarray, order: list[int]
) -> None:
    """The same voxels stored in another order are the same result."""
    affine = np.diag([0.7, 1.3, 4.0, 1.0])
    moved = affine[:, [*order, 3]]
    one = label_scores(truth, predicted, LABELS, affine=affine, slice_axis=2)
    two = label_scores(
        truth.transpose(order),
        predicted.transpose(order),
        LABELS,
        affine=moved,
        slice_axis=order.index(2),
    )
    for name in LABELS:
        assert vars(two[name]) == pytest.approx(vars(one[name]))
