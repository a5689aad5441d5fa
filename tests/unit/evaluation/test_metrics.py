"""Scores against hand-computed cases, against MONAI, and under geometry that must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot.evaluation.calibration import expected_calibration_error
from fewshot.evaluation.metrics import LabelScores, confusion, label_scores
from fewshot.evaluation.surface import surface_distances

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
        hd95_mm=pytest.approx(1.0),
        surface_mm=scores.surface_mm,
        distance_mm=pytest.approx(1.0),
        distance_px=pytest.approx(2.0),
        hit_10px=True,
        false_positive_slices=0,
        slices_without_label=6,
        truth_ml=pytest.approx(64 * 5 / 1000),
        predicted_ml=pytest.approx(64 * 5 / 1000),
        volume_error=0.0,
        ece=None,
    )
    assert 0 < scores.surface_mm < 1


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
    assert scores.distance_mm is scores.distance_px is scores.hd95_mm is scores.surface_mm is None
    assert scores.volume_error == -1
    assert (scores.truth_ml, scores.predicted_ml) == (pytest.approx(0.008), 0.0)


def test_a_label_only_in_the_prediction_counts_through_its_slices_alone() -> None:
    """Overlap is not defined without a truth, but every slice of it is a false positive."""
    predicted = box((3, 3, 6), 1, (0, 2), (0, 2), (1, 5))
    scores = label_scores(np.zeros_like(predicted), predicted, {"a": 1}, affine=np.eye(4))["a"]
    assert {
        value for key, value in vars(scores).items() if not key.endswith(("_ml", "_label", "_slices"))
    } == {None}
    assert (scores.false_positive_slices, scores.slices_without_label) == (4, 6)
    assert scores.predicted_ml == pytest.approx(0.016)


def test_a_label_in_neither_is_undefined() -> None:
    """A label that is rightly not found has no score, and all its slices are true negatives."""
    scores = label_scores(np.zeros((2, 2, 4), int), np.zeros((2, 2, 4), int), {"a": 1}, affine=np.eye(4))["a"]
    assert scores == LabelScores(*[None] * 7, 0, 4, 0.0, 0.0, None, None)


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
    assert scores.distance_mm is scores.hd95_mm is scores.surface_mm is None
    assert scores.truth_ml is scores.predicted_ml is None
    assert scores.volume_error == 0
    assert scores.distance_px == pytest.approx(1.0)


def test_maps_on_two_grids_are_refused() -> None:
    """A transposed prediction must never be scored."""
    with pytest.raises(ValueError, match="one grid"):
        label_scores(np.zeros((2, 3, 4), int), np.zeros((3, 2, 4), int), LABELS, affine=np.eye(4))


# --- surfaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "millimetres"), [(0, 4.0), (1, 6.0), (2, 12.0)])
def test_two_single_slices_apart_are_as_far_as_the_spacing_says(axis: int, millimetres: float) -> None:
    """Plates one voxel thick, four voxels apart: every surface voxel has its twin at that distance."""
    plate = [(2, 6), (2, 6), (2, 6)]
    plate[axis] = (1, 2)
    truth = box((8, 8, 8), 1, *plate)
    predicted = np.roll(truth, 4, axis=axis)
    scores = label_scores(truth, predicted, {"a": 1}, affine=np.diag([1.0, 1.5, 3.0, 1.0]))["a"]
    assert (scores.hd95_mm, scores.surface_mm) == (pytest.approx(millimetres), pytest.approx(millimetres))


def test_surfaces_of_a_cube_within_a_cube() -> None:
    """A cube of 3 voxels in one of 5, steps of 1, 1 and 2 mm: distances of both shells, counted by hand in numpy."""
    truth, predicted = (box((9, 9, 9), 1, *[(low, high)] * 3).astype(bool) for low, high in ((2, 7), (3, 6)))
    outer = np.argwhere(truth & ~box((9, 9, 9), 1, *[(3, 6)] * 3).astype(bool)) * [1.0, 1.0, 2.0]
    inner = np.argwhere(predicted & ~box((9, 9, 9), 1, *[(4, 5)] * 3).astype(bool)) * [1.0, 1.0, 2.0]
    assert (len(outer), len(inner)) == (125 - 27, 27 - 1)
    apart = np.linalg.norm(outer[:, None] - inner[None], axis=2)
    out_in, in_out = apart.min(axis=1), apart.min(axis=0)
    farthest = max(np.percentile(out_in, 95), np.percentile(in_out, 95))
    average = np.concatenate([out_in, in_out]).mean()
    found = surface_distances(truth, predicted, (1.0, 1.0, 2.0))
    assert found == (pytest.approx(farthest), pytest.approx(average))


@pytest.mark.parametrize("corner", [0, 3])
def test_a_crop_gives_the_distances_of_the_whole_volume(corner: int) -> None:
    """Also where the label touches the edge of the volume."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    rng = np.random.default_rng(3)
    truth, predicted = np.zeros((2, 14, 12, 9), np.uint8)
    for labels in (truth, predicted):
        labels[corner : corner + 6, corner : corner + 5, corner : corner + 4] = rng.random((6, 5, 4)) < 0.6
    spacing = [0.7, 1.1, 2.5]
    masks = [labels[None, None].astype(np.float32) for labels in (predicted, truth)]
    whole = (
        float(compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing)),
        float(
            compute_average_surface_distance(*masks, include_background=True, symmetric=True, spacing=spacing)
        ),
    )
    scores = label_scores(truth, predicted, {"a": 1}, affine=np.diag([*spacing, 1.0]))["a"]
    assert (scores.hd95_mm, scores.surface_mm) == pytest.approx(whole)


def test_in_a_picture_of_one_slice_surfaces_are_outlines() -> None:
    """A 9 x 9 square whose middle is missing in the prediction: as a volume its whole area would be surface."""
    truth = box((11, 11, 1), 1, (1, 10), (1, 10), (0, 1))
    scores = label_scores(truth, truth, {"a": 1}, affine=np.eye(4))["a"]
    assert (scores.hd95_mm, scores.surface_mm) == (0, 0)
    predicted = truth.copy()
    predicted[5, 5] = 0
    scores = label_scores(truth, predicted, {"a": 1}, affine=np.eye(4))["a"]
    # the outlines agree (32 + 32 voxels); the hole adds four voxels that lie three from the outline
    assert scores.surface_mm == pytest.approx(4 * 3 / (32 + 32 + 4))


# --- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_of_two_bins_worked_out() -> None:
    """Of 10 voxels at 0.8 six are the label, of 30 at 0.1 none: (10 * 0.2 + 30 * 0.1) / 40."""
    probability = np.array([0.8] * 10 + [0.1] * 30)
    truth = np.array([True] * 6 + [False] * 34)
    assert expected_calibration_error(probability, truth) == pytest.approx((10 * 0.2 + 30 * 0.1) / 40)


def test_probabilities_that_come_true_are_calibrated() -> None:
    """Half of the voxels at 0.5, all of those at 1."""
    probability = np.array([0.5] * 10 + [1.0] * 5, np.float16)
    truth = np.array([True, False] * 5 + [True] * 5)
    assert expected_calibration_error(probability, truth) == pytest.approx(0)


def test_gaps_of_one_bin_cancel_and_of_two_bins_do_not() -> None:
    """Bins are a fifteenth wide: 0.60 and 0.66 share one, 0.60 and 0.67 do not."""
    truth = np.array([True, False])
    assert expected_calibration_error(np.array([0.60, 0.66]), truth) == pytest.approx(abs(1.26 - 1) / 2)
    assert expected_calibration_error(np.array([0.60, 0.67]), truth) == pytest.approx((0.40 + 0.67) / 2)


def test_calibration_is_measured_near_the_label() -> None:
    """Ten voxels around it, in an image of any size; elsewhere every method is right to be certain."""

    def ece(size: int) -> float | None:
        truth = box((size, 3, 3), 1, (20, 22), (0, 3), (0, 3))
        wrong = np.where(truth == 1, 0.7, 0.3)
        probabilities = np.stack([1 - wrong, wrong])
        probabilities[1, :10] = probabilities[1, 32:] = 1  # what is farther off is not looked at
        found = label_scores(truth, truth, {"a": 1}, affine=np.eye(4), probabilities=probabilities)
        return found["a"].ece

    assert ece(40) == ece(400) == pytest.approx(0.3)


def test_calibration_of_the_second_label_reads_the_second_channel() -> None:
    """And is not defined for a label that the truth lacks."""
    truth = box((4, 4, 4), 5, (1, 3), (1, 3), (1, 3))
    probabilities = np.stack([truth != 5, np.full(truth.shape, 0.9), truth == 5]).astype(np.float16)
    scores = label_scores(truth, truth, LABELS, affine=np.eye(4), probabilities=probabilities)
    assert (scores["a"].ece, scores["b"].ece) == (None, 0)
    with pytest.raises(ValueError, match="expected"):
        label_scores(truth, truth, LABELS, affine=np.eye(4), probabilities=probabilities[:2])


def test_confusion_of_two_labels() -> None:
    """Values without a name are background; empty pairs are left out."""
    truth, predicted = np.array([[[0, 1, 1, 5, 9]]]), np.array([[[1, 1, 5, 0, 0]]])
    assert confusion(truth, predicted, LABELS) == {
        "background": {"background": 1, "a": 1},
        "a": {"a": 1, "b": 1},
        "b": {"background": 1},
    }


# --- agreement with other programs, and what must not matter ---------------------------------------------------------


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


@settings(deadline=None, max_examples=25)
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
