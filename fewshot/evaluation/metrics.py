"""How well a predicted label map agrees with the truth, label by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

HIT_PX = 10.0
"""A landmark counts as found below this many pixels of distance (paper, section 3.2)."""


@dataclass(frozen=True)
class LabelScores:
    """Agreement of one label in one volume; None stands for "not defined here", never for zero.

    | in the truth | predicted | iou, dice | distance_mm, distance_px | hit_10px |
    |---|---|---|---|---|
    | yes | yes | 0 to 1 | centroid distance | distance_px < 10 |
    | yes | no  | 0 | None | False |
    | no  | yes | None | None | None |
    | no  | no  | None | None | None |

    A label that the truth does not hold has no overlap to measure; what is wrongly predicted for it
    shows in `false_positive_slices` and `predicted_ml`.
    """

    iou: float | None
    dice: float | None
    distance_mm: float | None
    distance_px: float | None
    hit_10px: bool | None
    false_positive_slices: int
    slices_without_label: int
    truth_ml: float | None
    predicted_ml: float | None


def label_scores(
    truth: np.ndarray,
    predicted: np.ndarray,
    labels: Mapping[str, int],
    *,
    affine: np.ndarray,
    slice_axis: int = 2,
    calibrated: bool = True,
) -> dict[str, LabelScores]:
    """Compare two label maps on one grid.

    Distances are between the centroids of all voxels of a label: in millimetres through the affine, and in
    pixels as the Euclidean distance in voxel indices of the native grid (the paper's ten-pixel rule). A slice
    without a label in which the label was predicted is a false positive
    slice (the paper's true-negative claim).

    Args:
        truth: integer label map [X, Y, Z].
        predicted: integer label map [X, Y, Z].
        labels: label name -> value in both maps; other values count as background.
        affine: [4, 4], voxel index -> mm.
        slice_axis: the array axis along which the slices lie.
        calibrated: False where the affine is not in mm: distances in mm and volumes are then None.

    Raises:
        ValueError: the maps differ in shape.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} are not on one grid.")
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
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000

    scores: dict[str, LabelScores] = {}
    for i, name in enumerate(labels):
        there = bool(truth_size[i])
        both = there and bool(predicted_size[i])
        distance_px = float(np.linalg.norm(shift[:, i])) if both else None
        scores[name] = LabelScores(
            iou=float(overlap[i] / (truth_size[i] + predicted_size[i] - overlap[i])) if there else None,
            dice=float(2 * overlap[i] / (truth_size[i] + predicted_size[i])) if there else None,
            distance_mm=float(np.linalg.norm(shift_mm[:, i])) if both and calibrated else None,
            distance_px=distance_px,
            hit_10px=(distance_px is not None and distance_px < HIT_PX) if there else None,
            false_positive_slices=int((predicted_slices[:, i] & ~truth_slices[:, i]).sum()),
            slices_without_label=int((~truth_slices[:, i]).sum()),
            truth_ml=float(truth_size[i] * voxel_ml) if calibrated else None,
            predicted_ml=float(predicted_size[i] * voxel_ml) if calibrated else None,
        )
    return scores


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
