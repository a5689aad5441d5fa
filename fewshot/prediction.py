"""What a prediction says, on the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fewshot.volumes import SliceStack


@dataclass(frozen=True, eq=False)
class Prediction:
    """All labels of one volume.

    Attributes:
        labels: uint8 (uint16 above 255) ``[X, Y, Z]`` in the volume's voxel order, with the model's label values.
        names: label -> its value in ``labels``.
        confidence: mean probability inside each label, None where it was not found.
        empty_slices: for each label the slices, in the prediction's plane, that do not show it.
        timings: seconds per stage.
        provenance: adapter, model digest, backbone, templates, slicing.
        notes: stated handlings of unusual input.
        probabilities: float16 ``[L + 1, X, Y, Z]`` if they were asked for.
    """

    labels: np.ndarray
    names: dict[str, int]
    confidence: dict[str, float | None]
    empty_slices: dict[str, list[int]]
    timings: dict[str, float]
    provenance: dict[str, Any]
    notes: list[str]
    probabilities: np.ndarray | None = None

    @classmethod
    def from_slices(
        cls,
        stack: SliceStack,
        classes: np.ndarray,
        certainty: np.ndarray,
        maps: np.ndarray | None,
        *,
        labels: dict[str, int],
        timings: dict[str, float],
        provenance: dict[str, Any],
        notes: Sequence[str],
    ) -> Self:
        """Bring a class map ``[S, rows, cols]`` back to the volume and sum it up per label."""
        values = np.array([0, *labels.values()])
        confidence: dict[str, float | None] = {}
        empty_slices: dict[str, list[int]] = {}
        for index, name in enumerate(labels, start=1):
            mask = classes == index
            confidence[name] = round(float(certainty[mask].mean(dtype=np.float64)), 4) if mask.any() else None
            empty_slices[name] = np.flatnonzero(~mask.any((1, 2))).tolist()
        return cls(
            labels=stack.restore(values.astype(np.uint8 if values.max() < 256 else np.uint16)[classes]),
            names=dict(labels),
            confidence=confidence,
            empty_slices=empty_slices,
            timings=timings,
            provenance=provenance,
            notes=list(notes),
            probabilities=None
            if maps is None
            else np.stack([stack.restore(maps[..., channel]) for channel in range(maps.shape[-1])]),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the voxels."""
        return {
            "confidence": self.confidence,
            "empty_slices": self.empty_slices,
            "timings": self.timings,
            "provenance": self.provenance,
            "notes": self.notes,
        }
