"""Slicer's point lists, in the form that Slicer 5 writes."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks.markups import markups_json, read_markups, write_markups
from tests.unit.landmarks.made import at, prediction, volume

SLICER = {
    "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "locked": False,
            "fixedNumberOfControlPoints": False,
            "labelFormat": "%N-%d",
            "lastUsedControlPointNumber": 3,
            "controlPoints": [
                {
                    "id": "1",
                    "label": "nasion",
                    "description": "",
                    "associatedNodeID": "vtkMRMLScalarVolumeNode1",
                    "position": [-12.25, 30.0, 4.5],
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "selected": True,
                    "locked": False,
                    "visibility": True,
                    "positionStatus": "defined",
                },
                {
                    "id": "2",
                    "label": "inion",
                    "description": "skipped",
                    "associatedNodeID": "",
                    "position": "",
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "selected": True,
                    "locked": False,
                    "visibility": True,
                    "positionStatus": "missing",
                },
                {
                    "id": "3",
                    "label": "tip",
                    "description": "",
                    "associatedNodeID": "",
                    "position": "",
                    "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
                    "selected": True,
                    "locked": False,
                    "visibility": True,
                    "positionStatus": "undefined",
                },
            ],
            "measurements": [],
            "display": {
                "visibility": True,
                "opacity": 1.0,
                "color": [0.4, 1.0, 1.0],
                "glyphType": "Sphere3D",
            },
        }
    ],
}


@pytest.fixture
def save(tmp_path):
    """Write SLICER with changes to its markup and to its first point."""

    def save(point=None, more=(), **markup):
        content = copy.deepcopy(SLICER)
        content["markups"][0] |= markup
        if isinstance(content["markups"][0]["controlPoints"], list):
            content["markups"][0]["controlPoints"][0] |= point or {}
            content["markups"][0]["controlPoints"] += more
        path = tmp_path / "scan.mrk.json"
        path.write_text(json.dumps(content))
        return path

    return save


def test_a_file_of_slicer(save):
    marks, absent = read_markups(save())
    assert {name: mark.point for name, mark in marks.items()} == {"nasion": (12.25, -30.0, 4.5)}
    assert absent == {"inion"}


@pytest.mark.parametrize(
    ("system", "x"), [("LPS", 12.25), ("RAS", -12.25), ("1", 12.25), ("0", -12.25), (1, 12.25), (0, -12.25)]
)
def test_coordinate_systems(save, system, x):
    assert read_markups(save(coordinateSystem=system))[0]["nasion"].point == (x, np.sign(-x) * 30, 4.5)


def test_units_as_a_code(save):
    assert read_markups(save(coordinateUnits=["mm", "UCUM", "millimeter"]))[0]


def test_several_points_of_a_name_are_one_landmark(save):
    marks, _ = read_markups(save(more=[{"label": "nasion", "position": [-12.25, 34.0, 4.5]}]))
    assert marks["nasion"].point == (12.25, -32.0, 4.5)
    assert marks["nasion"].spread == pytest.approx(2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "Line"}, 'type "Line"'),
        ({"type": "Curve"}, 'type "Curve"'),
        ({"type": None}, "type null"),
        ({"coordinateSystem": "IJK"}, 'coordinate system "IJK"'),
        ({"coordinateUnits": "um"}, 'coordinates in "um"'),
        ({"controlPoints": "none"}, "no list of control points"),
        ({"point": {"label": ""}}, "without a name"),
        ({"point": {"position": [1, 2]}}, "nasion has the position"),
        ({"point": {"position": ""}}, "nasion has the position"),
        ({"point": {"position": [1, 2, float("nan")]}}, "nasion has the position"),
        ({"point": {"positionStatus": "lost"}}, 'status "lost"'),
        ({"point": {"label": "inion"}}, "inion a place and says that it is absent"),
        ({"more": [{"label": "other", "position": [-12.25, 30, 4.5]}]}, "at one place, nasion and other"),
    ],
)
def test_bad_files_are_refused_by_name(save, changes, said):
    path = save(**changes)
    with pytest.raises(FewshotError, match=said) as refused:
        read_markups(path)
    assert str(path) in str(refused.value)


def test_other_json_is_no_markups(tmp_path):
    path = tmp_path / "scan.json"
    path.write_text('{"a": [1, 2, 3]}')
    with pytest.raises(FewshotError, match="holds no markups"):
        read_markups(path)


def test_what_is_written_is_read(tmp_path):
    scan = volume()
    found = prediction(scan, nasion=at(scan, 3.25, 4, 5), tip=None, inion=at(scan, 8, 8, 8))
    path = tmp_path / "new" / "scan.mrk.json"
    write_markups(path, found)
    marks, absent = read_markups(path)
    assert absent == {"tip"}
    for name, point in found.points.items():
        np.testing.assert_allclose(marks[name].point, point, atol=1e-5)


def test_what_slicer_reads_is_there():
    """Every key that Slicer itself writes, in LPS, without a position for what was not found."""
    scan = volume()
    x, y, z = at(scan, 3, 4, 5)
    content = markups_json(prediction(scan, nasion=(x, y, z), tip=None))
    assert content["@schema"] == SLICER["@schema"]
    (markup,) = content["markups"]
    assert markup.keys() == SLICER["markups"][0].keys()
    there, missing = markup["controlPoints"]
    assert there.keys() == SLICER["markups"][0]["controlPoints"][0].keys()
    np.testing.assert_allclose(there["position"], (-x, -y, z), atol=1e-5)
    assert (there["positionStatus"], there["description"]) == ("defined", "confidence 0.88")
    assert "position" not in missing
    assert (missing["positionStatus"], missing["label"]) == ("missing", "tip")
    assert "nothing looks like it" in missing["description"]
