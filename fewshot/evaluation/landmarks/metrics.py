"""How far from the truth each landmark was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.evaluation.landmarks.views import View
from fewshot.evaluation.metrics import HIT_PX
from fewshot.landmarks import LandmarkPrediction
from fewshot.landmarks.template import Point, to_voxels

SUCCESS_MM = (2, 4, 10)
"""Distances at which a landmark counts as found, for the success rates (customary in cephalometry)."""


@dataclass(frozen=True)
class LandmarkScore:
    """One landmark in one view; None stands for "not defined here", never for zero.

    | in the image | found | error, guess | hit, success |
    |---|---|---|---|
    | yes | yes | number | error below the limit |
    | yes | no  | guess alone, if there was one | False |
    | no  | either | None | None |

    A landmark that is found where it is absent is a false detection. Millimetres are None where the image is not
    calibrated.

    Attributes:
        present: whether it is in this image.
        found: whether the method says so.
        confidence: 0 to 1.
        error_mm: distance from the truth, if it was found.
        error_px: the same in voxel indices of the image's own grid.
        guess_mm: the same in mm of the place that came first, also where it was refused.
        hit_10px: whether `error_px` is below ten (paper, section 3.2).
        success_2mm: whether `error_mm` is at most 2, and so on.
        success_4mm: see there.
        success_10mm: see there.
        truth: RAS+ mm.
        point: where it was found, RAS+ mm.
    """

    present: bool
    found: bool
    confidence: float
    error_mm: float | None
    error_px: float | None
    guess_mm: float | None
    hit_10px: bool | None
    success_2mm: bool | None
    success_4mm: bool | None
    success_10mm: bool | None
    truth: Point | None
    point: Point | None


def landmark_scores(
    view: View, prediction: LandmarkPrediction, names: Sequence[str]
) -> dict[str, LandmarkScore]:
    """Compare a prediction with the truth of a view.

    Args:
        view: the image, and what is known of it.
        prediction: made on this image.
        names: the landmarks that could be learned; of these, those that the view can judge have a score.
    """
    return {
        name: _score(view, prediction, name) for name in names if name in view.present or name in view.absent
    }


def _score(view: View, prediction: LandmarkPrediction, name: str) -> LandmarkScore:
    told = prediction.landmarks[name]
    truth, point = view.present.get(name), told.point
    calibrated = view.volume.calibrated
    mm = px = guess = None
    if truth is not None and point is not None:
        mm = float(np.linalg.norm(np.subtract(point, truth)))
        here, there = to_voxels(view.volume, [truth, point])
        px = float(np.linalg.norm(here - there))
    if truth is not None and told.candidates and calibrated:
        guess = float(np.linalg.norm(np.subtract(told.candidates[0].point, truth)))
    within = {
        limit: (mm is not None and mm <= limit) if truth is not None and calibrated else None
        for limit in SUCCESS_MM
    }
    return LandmarkScore(
        present=truth is not None,
        found=told.found,
        confidence=round(float(told.confidence), 4),
        error_mm=mm if calibrated else None,
        error_px=px,
        guess_mm=guess,
        hit_10px=(px is not None and px < HIT_PX) if truth is not None else None,
        success_2mm=within[2],
        success_4mm=within[4],
        success_10mm=within[10],
        truth=truth,
        point=point,
    )
