"""Slicer's markups: lists of named points, as its Markups module saves and loads them (schema 1.0.3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError
from fewshot.landmarks.reading import Marks, as_marks, checked_name, checked_numbers, read_object
from fewshot.landmarks.result import FoundLandmark, LandmarkPrediction
from fewshot.landmarks.template import Point
from fewshot.model import write_file

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
KIND = "Fiducial"
SIGNS = {"LPS": (-1, -1, 1), "1": (-1, -1, 1), "RAS": (1, 1, 1), "0": (1, 1, 1)}
"""From a file's coordinates to RAS; Slicer writes names, and numbers in older files."""
STATES = ("defined", "missing", "undefined", "preview")
"""What Slicer says of a position: there, looked for and skipped, or not placed yet."""
DIGITS = 6


def is_markups(content: dict[str, Any]) -> bool:
    """Whether a JSON object is a file of markups, not points of which one is called so."""
    listed = content.get("markups")
    return isinstance(listed, list) and all(isinstance(of, dict) for of in listed)


def read_markups(path: Path | str) -> Marks:
    """Read lists of points; several points of one name are one landmark with its spread.

    Raises:
        FewshotError: the file is damaged, holds another kind of markups (lines, curves), an unknown coordinate
            system or unit, a point without name or place, or two names at one place.
    """
    path = Path(path)
    content = read_object(path)
    if not is_markups(content):
        raise FewshotError(f"{path} holds no markups; save a point list in Slicer as .mrk.json.")
    points, absent = markups_points(content, path)
    return as_marks(points, absent, path)


def markups_points(content: dict[str, Any], path: Path) -> tuple[dict[str, list[Point]], set[str]]:
    """Landmark name -> its points in RAS+ mm, and the names of those that are missing.

    Raises:
        FewshotError: as `read_markups`, but for names and places that are not compared.
    """
    points: dict[str, list[Point]] = {}
    absent = set()
    for markup in content["markups"]:
        signs = _signs(markup, path)
        for control in _controls(markup, path):
            name = checked_name(control.get("label"), path)
            status = control.get("positionStatus", "defined")
            if status not in STATES:
                raise FewshotError(
                    f"{path}: landmark {name} has the status {json.dumps(status)}; known are {', '.join(STATES)}."
                )
            if status == "missing":
                absent.add(name)
            elif status == "defined":
                numbers = checked_numbers(control.get("position"), (3,), f"{path}: landmark {name}")
                x, y, z = (sign * number for sign, number in zip(signs, numbers, strict=True))
                points.setdefault(name, []).append((x, y, z))
    return points, absent


def markups_json(prediction: LandmarkPrediction) -> dict[str, Any]:
    """A point list with every landmark: LPS mm, ``missing`` where it was not found, confidence as description."""
    controls = [_control(str(number), of) for number, of in enumerate(prediction.landmarks.values(), start=1)]
    return {
        "@schema": SCHEMA,
        "markups": [
            {
                "type": KIND,
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "locked": False,
                "fixedNumberOfControlPoints": False,
                "labelFormat": "%N-%d",
                "lastUsedControlPointNumber": len(controls),
                "controlPoints": controls,
                "measurements": [],
                "display": {
                    "visibility": True,
                    "pointLabelsVisibility": True,
                    "glyphType": "Sphere3D",
                    "sliceProjection": False,
                },
            }
        ],
    }


def write_markups(path: Path | str, prediction: LandmarkPrediction) -> None:
    """Write `markups_json` beside and rename it into place."""
    content = json.dumps(markups_json(prediction), indent=1, allow_nan=False)
    write_file(Path(path), content.encode())


def _control(number: str, of: FoundLandmark) -> dict[str, Any]:
    control: dict[str, Any] = {"id": number, "label": of.name, "associatedNodeID": ""}
    if of.point is None:  # Slicer reads a position as a place, so that there must be none
        control["description"] = f"not found: {of.reason}" if of.reason else "not found"
    else:
        x, y, z = of.point
        control["description"] = f"confidence {of.confidence:.2f}"
        control["position"] = [round(value, DIGITS) + 0.0 for value in (-x, -y, z)]
    return {
        **control,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "missing" if of.point is None else "defined",
    }


def _signs(markup: dict[str, Any], path: Path) -> tuple[int, int, int]:
    kind = markup.get("type")
    if kind != KIND:
        raise FewshotError(
            f"{path} holds markups of type {json.dumps(kind)}, which are no landmarks; save a point list "
            f"({KIND}) alone in the file."
        )
    units = markup.get("coordinateUnits", "mm")
    if (units[0] if isinstance(units, list) and units else units) != "mm":
        raise FewshotError(f"{path} has coordinates in {json.dumps(units)}; save them in mm.")
    system = markup.get("coordinateSystem", "LPS")
    if str(system) not in SIGNS:
        raise FewshotError(f"{path} has the coordinate system {json.dumps(system)}; save it in LPS or RAS.")
    return SIGNS[str(system)]


def _controls(markup: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    controls = markup.get("controlPoints", [])
    if not isinstance(controls, list) or not all(isinstance(of, dict) for of in controls):
        raise FewshotError(f"{path} has no list of control points; save it in Slicer again.")
    return controls
