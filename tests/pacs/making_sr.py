"""Landmarks of an image, as a model finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nibabel.affines import apply_affine

from fewshot.landmarks.result import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.volumes import Volume

VOXELS = {"Spitze links": (3.25, 2.5, 2.6), "größte Höhle": (1.0, 0.75, 4.4)}
LOST = FoundLandmark("Kinn", found=False, confidence=0.2, reason="nothing in this image looks like it")
MADE: dict[str, Any] = {
    "fewshot": "1.2.3",
    "method": "auto",
    "model": "0123456789abcdef",
    "backbone": {"name": "tiny", "digest": "feed"},
    "templates": ["a", "b"],
}


def make_prediction(
    volume: Volume, voxels: Mapping[str, Sequence[float]] | None = None, *, lost: bool = True
) -> LandmarkPrediction:
    """Landmarks at voxel coordinates of an image, the first one most certain, and one that was not found."""
    found = {}
    for at, (name, voxel) in enumerate((VOXELS if voxels is None else voxels).items()):
        x, y, z = apply_affine(volume.affine, voxel).tolist()
        confidence = 0.875 - 0.25 * at
        found[name] = FoundLandmark(name, True, confidence, (Candidate((x, y, z), confidence),))
    if lost:
        found[LOST.name] = LOST
    return LandmarkPrediction(found, volume.affine, volume.shape, provenance=dict(MADE))
