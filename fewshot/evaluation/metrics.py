"""How well a predicted label map agrees with the truth, label by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fewshot.evaluation.calibration import MARGIN, expected_calibration_error
from fewshot.evaluation.surface import surface_distances
from fewshot.volumes.volume import spacing_of

HIT_PX = 10.0
"""A landmark counts as found below this many pixels of distance (paper, section 3.2)."""


@dataclass(frozen=True)
class LabelScores:
    """Agreement of one label in one volume; None stands for "not defined here", never for zero.

    | in the truth | predicted | iou, dice | hd95, surface, distance | hit_10px | volume_error | ece |
    |---|---|---|---|---|---|---|
    | yes | yes | 0 to 1 | number | distance_px < 10 | number | number |
    | yes | no  | 0 | None | False | -1 | number |
    | no  | yes | None | None | None | None | None |
    | no  | no  | None | None | None | None | None |

    A label that the truth does not hold has no overlap to measure; what is wrongly predicted for it
    shows in `false_positive_slices` and `predicted_ml`. Millimetres and millilitres are None where the image is
    not calibrated, `ece` without probabilities.

    Attributes:
        iou: intersection over union.
        dice: Dice coefficient.
        hd95_mm: 95th percentile Hausdorff distance.
        surface_mm: average symmetric surface distance.
        distance_mm: between the centroids.
        distance_px: between the centroids, in voxel indices.
        hit_10px: whether `distance_px` is below ten.
        false_positive_slices: slices without the label in which it was predicted.
        slices_without_label: slices in which the truth does not hold it.
        truth_ml: its volume.
        predicted_ml: its predicted volume.
        volume_error: (predicted - truth) / truth.
        ece: expected calibration error of its probability, within a box around truth and prediction.
    """

    iou: float | None
    dice: float | None
    hd95_mm: float | None
    surface_mm: float | None
    distance_mm: float | None
    distance_px: float | None
    hit_10px: bool | None
    false_positive_slices: int
    slices_without_label: int
    truth_ml: float | None
    predicted_ml: float | None
    volume_error: float | None
    ece: float | None


def label_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    labels: Mapping[str, int],
    *,
    affine: np.ndarray,
    slice_axis: int = 2,
    calibrated: bool = True,
    probabilities: np.ndarray | None = None,
) -> dict[str, LabelScores]:
    """Compare two label maps on one grid.

    Distances are between the centroids of all voxels of a label: in millimetres through the affine, and in
    pixels as the Euclidean distance in voxel indices of the native grid (the paper's ten-pixel rule). A slice
    without a label in which the label was predicted is a false positive slice (the paper's true-negative claim).

    Calibration is measured in the box around truth and prediction and `MARGIN` voxels around it: nearly all of
    a volume is air or far from the label, and every method is right to be certain there.

    Args:
        truth: integer label map [X, Y, Z].
        predicted: integer label map [X, Y, Z].
        labels: label name -> value in both maps; other values count as background.
        affine: [4, 4], voxel index -> mm.
        slice_axis: the array axis along which the slices lie.
        calibrated: False where the affine is not in mm: distances in mm and volumes are then None.
        probabilities: [L + 1, X, Y, Z], channel k of the k-th of `labels`, if there are any.

    Raises:
        ValueError: the maps differ in shape.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} are not on one grid.")
    expected = (len(labels) + 1, *truth.shape)
    if probabilities is not None and probabilities.shape != expected:
        raise ValueError(f"probabilities of shape {probabilities.shape} do not fit: {expected} are expected.")
    values = np.array(list(labels.values()), dtype=np.int64)
    profiles = [(_profile(truth, axis, values), _profile(predicted, axis, values)) for axis in range(3)]
    truth_size, predicted_size = (profile.sum(axis=0) for profile in profiles[0])
    overlap = _counts(truth[truth == predicted], values)
    centroids = [(_centre(of_truth), _centre(of_predicted)) for of_truth, of_predicted in profiles]
    shift = np.array(
        [there - here for here, there in centroids]
    )  # [3, L] voxels, NaN where a label is missing
    shift_mm = affine[:3, :3] @ shift
    truth_slices, predicted_slices = (profile > 0 for profile in profiles[slice_axis])  # [S, L]
    flat = [axis for axis in range(3) if truth.shape[axis] == 1]
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000

    scores: dict[str, LabelScores] = {}
    for i, (name, value) in enumerate(labels.items()):
        there = bool(truth_size[i])
        both = there and bool(predicted_size[i])
        distance_px = float(np.linalg.norm(shift[:, i])) if both else None
        hd95 = surface = ece = None
        if both and calibrated:
            box = _box(profiles, i, margin=0)
            hd95, surface = surface_distances(
                truth[box] == value, predicted[box] == value, spacing_of(affine), flat=flat
            )
        if there and probabilities is not None:
            box = _box(profiles, i, margin=MARGIN)
            ece = expected_calibration_error(probabilities[(i + 1, *box)], truth[box] == value)
        scores[name] = LabelScores(
            iou=float(overlap[i] / (truth_size[i] + predicted_size[i] - overlap[i])) if there else None,
            dice=float(2 * overlap[i] / (truth_size[i] + predicted_size[i])) if there else None,
            hd95_mm=hd95,
            surface_mm=surface,
            distance_mm=float(np.linalg.norm(shift_mm[:, i])) if both and calibrated else None,
            distance_px=distance_px,
            hit_10px=(distance_px is not None and distance_px < HIT_PX) if there else None,
            false_positive_slices=int((predicted_slices[:, i] & ~truth_slices[:, i]).sum()),
            slices_without_label=int((~truth_slices[:, i]).sum()),
            truth_ml=float(truth_size[i] * voxel_ml) if calibrated else None,
            predicted_ml=float(predicted_size[i] * voxel_ml) if calibrated else None,
            volume_error=float(predicted_size[i] / truth_size[i] - 1) if there else None,
            ece=ece,
        )
    return scores


def confusion(
    truth: np.ndarray, predicted: np.ndarray, labels: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """How many voxels of each true label were given each label; pairs without voxel are left out.

    Args:
        truth: integer label map.
        predicted: integer label map on the same grid.
        labels: label name -> value in both maps; other values count as background.

    Returns:
        Name in the truth -> name in the prediction -> voxels, with "background".
    """
    names = ["background", *labels]
    lookup = np.zeros(1 + max([*labels.values(), int(truth.max()), int(predicted.max())]), np.int64)
    lookup[list(labels.values())] = np.arange(1, len(names))
    pairs = np.bincount((lookup[truth] * len(names) + lookup[predicted]).ravel(), minlength=len(names) ** 2)
    table = pairs.reshape(len(names), len(names)).tolist()
    return {
        name: {other: voxels for other, voxels in zip(names, row, strict=True) if voxels}
        for name, row in zip(names, table, strict=True)
        if any(row)
    }


def _box(
    profiles: list[tuple[np.ndarray, np.ndarray]], label: int, *, margin: int
) -> tuple[slice, slice, slice]:
    """The smallest box that holds a label's truth and prediction, and a margin where the volume has one."""
    ranges = []
    for of_truth, of_predicted in profiles:
        inside = np.flatnonzero(of_truth[:, label] + of_predicted[:, label])
        ranges.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + 1 + margin))
    x, y, z = ranges
    return x, y, z


def _profile(labels: np.ndarray, axis: int, values: np.ndarray) -> np.ndarray:
    """Voxels of each value in each slice along an axis [S, L]: centroids and slice presence both follow."""
    return np.array([_counts(plane, values) for plane in np.moveaxis(labels, axis, 0)])


def _counts(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How often each value occurs [L]."""
    return np.bincount(labels.ravel(), minlength=int(values.max(initial=0)) + 1)[values]


def _centre(profile: np.ndarray) -> np.ndarray:
    """Mean slice index of each value [L], NaN where it does not occur."""
    with np.errstate(invalid="ignore"):
        return (np.arange(len(profile)) @ profile) / profile.sum(axis=0)
