"""Where landmarks were found in one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from nibabel.affines import apply_affine

from fewshot.errors import FewshotError
from fewshot.landmarks.template import Point

DIGITS = 4


@dataclass(frozen=True)
class Candidate:
    """A place where a landmark may be.

    Attributes:
        point: RAS+ mm.
        confidence: 0 to 1.
    """

    point: Point
    confidence: float


@dataclass(frozen=True)
class FoundLandmark:
    """What is said about one landmark.

    Attributes:
        name: the landmark.
        found: False for "not in this image"; ``candidates`` then holds what came nearest to it, if anything did.
        confidence: 0 to 1, of the place that was chosen, or of the best that was refused.
        candidates: best first; the first one is the landmark if it was found, and further ones are told where they
            are nearly as good.
        reason: why it was not found; empty if it was.
    """

    name: str
    found: bool
    confidence: float
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""

    @property
    def point(self) -> Point | None:
        """RAS+ mm, None where it was not found."""
        return self.candidates[0].point if self.found else None


@dataclass(frozen=True, eq=False)
class LandmarkPrediction:
    """All landmarks of a model in one image.

    Attributes:
        landmarks: by name, in the model's order.
        affine: ``[4, 4]`` of the image, voxel index -> RAS+ mm.
        shape: of the image.
        calibrated: False where millimetres are pixels.
        timings: seconds per stage.
        provenance: method, model digest, backbone, templates.
        notes: stated handlings of unusual input.
    """

    landmarks: Mapping[str, FoundLandmark]
    affine: np.ndarray
    shape: tuple[int, int, int]
    calibrated: bool = True
    timings: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def points(self) -> dict[str, Point]:
        """The landmarks that were found, RAS+ mm."""
        return {name: of.point for name, of in self.landmarks.items() if of.point is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: of every landmark its place in RAS and LPS millimetres and in voxels, and how sure it is."""
        return {
            "landmarks": {
                name: {
                    "found": of.found,
                    "confidence": round(of.confidence, DIGITS),
                    **(self._place(of.point) if of.point else {"reason": of.reason}),
                    "candidates": [
                        {**self._place(place.point), "confidence": round(place.confidence, DIGITS)}
                        for place in of.candidates
                    ],
                }
                for name, of in self.landmarks.items()
            },
            "units": "mm" if self.calibrated else "pixel",
            "timings": self.timings,
            "provenance": self.provenance,
            "notes": self.notes,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any], affine: np.ndarray, shape: Sequence[int]) -> Self:
        """What `to_json` has told of an image with this grid.

        Raises:
            FewshotError: if it is something else.
        """
        try:
            depth, height, width = shape
            return cls(
                landmarks={name: _landmark(name, of) for name, of in said["landmarks"].items()},
                affine=affine,
                shape=(depth, height, width),
                calibrated=said["units"] == "mm",
                timings=said["timings"],
                provenance=said["provenance"],
                notes=list(said["notes"]),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise FewshotError(
                f"These landmarks cannot be read ({type(error).__name__}: {error}); find them again."
            ) from error

    def voxel(self, point: Point) -> tuple[float, float, float]:
        """RAS+ mm as voxel coordinates; a voxel's centre has whole numbers."""
        x, y, z = apply_affine(np.linalg.inv(self.affine), np.asarray(point))
        return float(x), float(y), float(z)

    def _place(self, point: Point) -> dict[str, list[float]]:
        x, y, z = point
        return {
            "ras": [round(value, DIGITS) for value in (x, y, z)],
            "lps": [round(value, DIGITS) + 0.0 for value in (-x, -y, z)],
            "voxel": [round(value, DIGITS) for value in self.voxel(point)],
        }


def _landmark(name: str, said: Mapping[str, Any]) -> FoundLandmark:
    landmark = FoundLandmark(
        name,
        found=bool(said["found"]),
        confidence=_number(said["confidence"]),
        candidates=tuple(_candidate(place) for place in said["candidates"]),
        reason=said.get("reason", ""),
    )
    if landmark.found and not landmark.candidates:
        raise ValueError(f"{name} was found nowhere")
    return landmark


def _candidate(said: Mapping[str, Any]) -> Candidate:
    x, y, z = map(_number, said["ras"])
    return Candidate((x, y, z), _number(said["confidence"]))


def _number(said: Any) -> float:
    number = float(said)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number")
    return number
