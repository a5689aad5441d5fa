"""Datasets with landmarks: files of points, or the centres of labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from tests.unit.dataset.made import AFFINE, SHAPE, describe, image, labels, msd, totalsegmentator, write


def place(*voxel: float) -> list[float]:
    """RAS+ mm of a voxel."""
    return (AFFINE[:3, :3] @ voxel + AFFINE[:3, 3]).tolist()


@pytest.fixture
def points(tmp_path):
    """Three cases with landmarks: in our own form, as Slicer writes it, and none."""
    for number, name in enumerate(("a", "b", "c.1")):
        write(tmp_path / "images" / f"{name}.nii.gz", image(number))
    folder = tmp_path / "landmarks"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"tip": place(1, 2, 3), "base": place(4, 0, 1), "left": None}))
    x, y, z = place(2, 2, 2)
    controls = [{"label": "base", "position": [-x, -y, z]}]
    (folder / "b.mrk.json").write_text(
        json.dumps({"markups": [{"type": "Fiducial", "controlPoints": controls}]})
    )
    (folder / "._a.json").write_bytes(b"Mac OS X")
    return describe(tmp_path, modality="CT")


def read(dataset, name):
    case = dataset.cases[name]
    marks, absent = dataset.read_marks(case, dataset.volume(case))
    return {key: mark.point for key, mark in marks.items()}, absent


def test_files_beside_images(points):
    dataset = Dataset.open(points)
    assert (dataset.landmarks, dataset.labels) == (("tip", "base", "left"), {})
    assert list(dataset.labelled) == ["a", "b"]
    found, absent = read(dataset, "a")
    assert found == {"tip": tuple(place(1, 2, 3)), "base": tuple(place(4, 0, 1))}
    assert absent == {"left"}
    assert read(dataset, "b") == ({"base": tuple(place(2, 2, 2))}, frozenset())
    template = dataset.landmark_template(dataset.cases["a"])
    assert (template.volume.name, set(template.marks), template.absent) == ("a", {"tip", "base"}, {"left"})
    with pytest.raises(FewshotError, match=r"c\.1\.nii\.gz has no landmarks"):
        read(dataset, "c.1")
    with pytest.raises(FewshotError, match="no labelled case"):
        dataset.choose(["c.1"])


def test_what_a_complete_dataset_does_not_say_is_absent(points):
    describe(points, complete=True)
    assert read(Dataset.open(points), "b")[1] == {"tip", "left"}
    assert read(Dataset.open(points, landmarks=["left", "base"]), "b")[1] == {"left"}


def test_some_of_them(points):
    dataset = Dataset.open(points, landmarks=["left", "base", "base"])
    assert dataset.landmarks == ("left", "base")
    assert read(dataset, "a") == ({"base": tuple(place(4, 0, 1))}, {"left"})
    with pytest.raises(FewshotError, match='no landmark in .* "tipp": did you mean tip'):
        Dataset.open(points, landmarks=["tipp"])
    with pytest.raises(FewshotError, match="it has tip, base, left"):
        Dataset.open(points, landmarks=[])
    only_tip = Dataset.open(points, landmarks=["tip"])
    with pytest.raises(FewshotError, match=r"b\.mrk\.json has none of the landmarks tip"):
        only_tip.landmark_template(only_tip.cases["b"])


def test_a_list_of_landmarks_is_the_whole_of_them(points):
    describe(points, landmarks=["left", "tip"])
    dataset = Dataset.open(points)
    assert dataset.landmarks == ("left", "tip")
    with pytest.raises(FewshotError, match=r'a\.json has the landmark base, unknown.*"landmarks"'):
        read(dataset, "a")
    describe(points, landmarks=["left", "tip", "base"])
    assert set(read(Dataset.open(points, landmarks=["tip"]), "a")[0]) == {"tip"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("tip", "must be a list of names"),
        ([1], "has the entry 1"),
        (["tip "], "has the entry"),
        (["a", "a"], "a twice"),
    ],
)
def test_a_list_that_is_none(points, said, message):
    describe(points, landmarks=said)
    with pytest.raises(FewshotError, match=message):
        Dataset.open(points)


def test_a_damaged_file_takes_away_its_case_alone(points):
    (points / "landmarks" / "a.json").write_text('{"tip": [1, ')
    dataset = Dataset.open(points)
    assert (dataset.landmarks, list(dataset.labelled)) == (("base",), ["b"])
    with pytest.raises(FewshotError, match=r"a\.json cannot be read as JSON"):
        dataset.choose(["a"])
    assert dataset.lost.keys() == {"a"}
    (points / "landmarks" / "b.mrk.json").unlink()
    with pytest.raises(FewshotError, match=r"a\.json cannot be read as JSON"):
        Dataset.open(points)


def test_files_of_one_case_or_of_none(points):
    (points / "landmarks" / "b.json").write_text("{}")
    with pytest.raises(FewshotError, match=r"b\.json and .*b\.mrk\.json are both called b"):
        Dataset.open(points)
    (points / "landmarks" / "b.json").rename(points / "landmarks" / "d.json")
    with pytest.raises(FewshotError, match=r"d\.json has no image d"):
        Dataset.open(points)


def test_a_landmark_outside_its_image(points):
    (points / "landmarks" / "a.json").write_text(json.dumps({"tip": place(1, 2, 30)}))
    with pytest.raises(FewshotError, match=r"a\.json: landmark tip lies outside"):
        read(Dataset.open(points), "a")


def test_labels_go_first(points):
    """Where a dataset has both, landmarks are for those who ask."""
    write(points / "labels" / "a.nii.gz", labels())
    describe(points, labels={"liver": 1, "cancer": 2})
    dataset = Dataset.open(points)
    assert (dataset.landmarks, list(dataset.labelled)) == ((), ["a"])
    assert Dataset.open(points, labels=["liver"]).landmarks == ()
    asked = Dataset.open(points, landmarks="all")
    assert (asked.landmarks, list(asked.labelled)) == (("tip", "base", "left"), ["a", "b"])
    with pytest.raises(FewshotError, match="not for both"):
        Dataset.open(points, labels=["liver"], landmarks="all")


@pytest.fixture
def drawn(tmp_path):
    """A case with a label inside the image, one that touches its border, and one that is not there."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 1:3, 1:3], array[5:, 3, 1], array[4, 1, 1] = 1, 2, 4
    write(tmp_path / "images" / "a.nii.gz", image())
    write(tmp_path / "labels" / "a.nii.gz", array)
    return describe(tmp_path, labels={"in": 1, "cut": 2, "gone": 3, "dot": 4})


def test_centres_of_labels(drawn):
    assert Dataset.open(drawn).landmarks == ()
    dataset = Dataset.open(drawn, landmarks="all")
    assert dataset.landmarks == ("in", "cut", "gone", "dot")
    found, absent = read(dataset, "a")
    assert found.keys() == {"in", "dot"}
    np.testing.assert_allclose(found["in"], place(2, 1.5, 1.5))
    np.testing.assert_allclose(found["dot"], place(4, 1, 1))
    assert absent == frozenset()
    case = dataset.cases["a"]
    assert dataset.landmark_template(case).marks["in"].spread == 0
    describe(drawn, labels={"in": 1, "cut": 2, "gone": 3, "dot": 4}, complete=True)
    assert read(Dataset.open(drawn, landmarks="all"), "a")[1] == {"gone"}


def test_centres_of_some_labels(drawn):
    dataset = Dataset.open(drawn, landmarks=["dot", "cut"])
    assert read(dataset, "a")[0].keys() == {"dot"}
    with pytest.raises(FewshotError, match="no landmark in"):
        Dataset.open(drawn, landmarks=["heart"])
    alone = Dataset.open(drawn, landmarks=["cut"])
    with pytest.raises(FewshotError, match="none of the landmarks cut"):
        alone.landmark_template(alone.cases["a"])


def test_centres_in_the_layouts_of_others(tmp_path):
    dataset = Dataset.open(msd(tmp_path / "msd"), landmarks=["liver"])
    assert read(dataset, "liver_0")[0]["liver"] == pytest.approx(place(1.5, 1.5, 1))
    dataset = Dataset.open(totalsegmentator(tmp_path / "ts"), landmarks="all")
    found, absent = read(dataset, "s0001")
    assert (found["liver"], absent) == (pytest.approx(place(2.5, 2, 1.5)), {"spleen"})


def test_a_slice_has_no_border_across_it(tmp_path):
    array = np.zeros((6, 5, 1), np.uint8)
    array[2, 2, 0] = 1
    write(tmp_path / "images" / "a.nii.gz", array.astype(np.float32))
    write(tmp_path / "labels" / "a.nii.gz", array)
    dataset = Dataset.open(describe(tmp_path, labels={"dot": 1}), landmarks="all")
    assert read(dataset, "a")[0]["dot"] == pytest.approx(place(2, 2, 0))


def test_pixels_of_pictures(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "landmarks").mkdir()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)).save(
        tmp_path / "images" / "a.png"
    )
    (tmp_path / "landmarks" / "a.json").write_text('{"apex": [25, 4]}')
    dataset = Dataset.open(describe(tmp_path, modality="X-ray"))
    template = dataset.landmark_template(dataset.cases["a"])
    assert template.marks["apex"].point == (-25, -4, 0)
    assert template.volume.array[25, 4, 0] == (4 * 30 + 25) % 256


def test_nothing_to_ask_for(tmp_path):
    write(tmp_path / "images" / "a.nii.gz", image())
    with pytest.raises(FewshotError, match="it has none"):
        Dataset.open(describe(tmp_path), landmarks="all")
