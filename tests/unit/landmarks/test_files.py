"""Files of landmarks: what is read, what is written, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks.files import names_in, read_landmarks, read_points, write_json_file, write_points
from tests.unit.landmarks.made import at, picture, prediction, volume


def write(tmp_path, content, name="scan.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_read(tmp_path):
    scan = volume()
    path = tmp_path / "new" / "scan.json"
    write_points(path, {"nasion": at(scan, 3.25, 4, 5), "inion": np.array(at(scan, 9, 2, 7)), "tip": None})
    marks, absent = read_points(path, scan)
    assert absent == {"tip"}
    assert list(marks) == ["nasion", "inion"]
    np.testing.assert_allclose(marks["nasion"].point, at(scan, 3.25, 4, 5), atol=1e-6)
    assert marks["nasion"].spread == 0
    assert names_in(path) == ["nasion", "inion", "tip"]
    assert [of.name for of in path.parent.iterdir()] == ["scan.json"]


def test_a_prediction_is_read_as_points(tmp_path):
    scan = volume()
    path = tmp_path / "scan.json"
    write_json_file(path, prediction(scan, nasion=at(scan, 1, 2, 3), tip=None).to_json())
    template = read_landmarks(path, scan)
    np.testing.assert_allclose(template.marks["nasion"].point, at(scan, 1, 2, 3), atol=1e-3)
    assert template.absent == {"tip"}
    assert names_in(path) == ["nasion", "tip"]


def test_slicers_markups_are_told_by_what_they_hold(tmp_path):
    scan = volume()
    x, y, z = at(scan, 1, 2, 3)
    controls = [{"label": "nasion", "position": [-x, -y, z]}]
    path = write(tmp_path, {"markups": [{"type": "Fiducial", "controlPoints": controls}]})
    np.testing.assert_allclose(read_points(path, scan)[0]["nasion"].point, (x, y, z))
    assert names_in(path) == ["nasion"]


def test_a_landmark_may_be_called_markups_or_landmarks(tmp_path):
    path = write(tmp_path, {"markups": [1, 2, 3], "landmarks": [4, 5, 6]})
    assert names_in(path) == list(read_points(path)[0]) == ["markups", "landmarks"]


def test_pixels_of_a_picture(tmp_path):
    path = write(tmp_path, {"apex": [12, 7.5], "corner": [0, 0]})
    image = picture()
    marks, _ = read_points(path, image)
    assert marks["apex"].point == (-12, -7.5, 0)
    assert prediction(image).voxel(marks["apex"].point) == (12, 7.5, 0)
    write_points(path, {name: mark.point for name, mark in marks.items()})
    assert read_points(path, image)[0] == marks


def test_what_editors_on_windows_write(tmp_path):
    assert list(read_points(write(tmp_path, '\ufeff{"a": [1, 2, 3]}'))[0]) == ["a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": [1, 2, ', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[[1, 2, 3]]", "must hold an object"),
        ('{"a": [1, 2]}', r"landmark a has the position \[1, 2\]"),
        ('{"a": [1, 2, 3, 4]}', "landmark a has the position"),
        ('{"a": "1 2 3"}', "landmark a has the position"),
        ('{"a": [1, 2, true]}', "landmark a has the position"),
        ('{"a": [1, 2, NaN]}', "landmark a has the position"),
        ('{"a": [1, 2, Infinity]}', "landmark a has the position"),
        ('{"a": [1, 2, 1%s]}' % ("0" * 400), "landmark a has the position"),
        ('{"a": [1, 2, 3], "a": [4, 5, 6]}', "has a twice"),
        ('{"a": [1, 2, 3], "a ": [4, 5, 6]}', "has a twice"),
        ('{" ": [1, 2, 3]}', "without a name"),
        ('{"a": [1, 2, 3], "b": [1, 2, 3.0001]}', "two landmarks at one place, a and b"),
        ('{"landmarks": {"a": {"ras": [1, 2, 3]}}}', "does not say of landmark a whether"),
        ('{"landmarks": {"a": {"found": true}}}', "landmark a has the position"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(FewshotError, match=said) as refused:
        read_points(path)
    assert str(path) in str(refused.value)


def test_near_is_not_the_same_place(tmp_path):
    assert len(read_points(write(tmp_path, {"a": [1, 2, 3], "b": [1, 2, 3.01]}))[0]) == 2


def test_a_point_outside_its_image(tmp_path):
    scan = volume()
    path = write(tmp_path, {"in": at(scan, 19.4, 0, 0), "out": at(scan, 19.6, 0, 0)})
    with pytest.raises(
        FewshotError, match=r"scan\.json: landmark out lies outside the image scan, at voxel 19\.6"
    ):
        read_points(path, scan)
    with pytest.raises(FewshotError, match="column, row"):
        read_points(write(tmp_path, {"a": [30, 3]}), picture())


def test_a_template_has_a_landmark(tmp_path):
    with pytest.raises(FewshotError, match=r"scan\.json has no landmark"):
        read_landmarks(write(tmp_path, {"a": None}), volume())


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FewshotError, match="There is no file"):
        read_points(tmp_path / "none.json")
