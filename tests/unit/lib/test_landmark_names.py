"""Which labels are landmarks: listed, named so, or with points in a file."""

import json

import pytest

from fewshot.errors import FewshotError
from lib.labels import LARGEST
from tests.unit.lib.landmarks import BOTH, write_points


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nasion landmark", True),
        ("nasion_landmark", True),
        ("Nasion (Landmark)", True),
        ("landmark", True),
        ("nasion", False),
        ("landmark nasion", False),
        ("benchlandmark", False),
        ("landmarks", False),
    ],
)
def test_a_name_may_say_so(open_project, name, expected):
    assert open_project().landmarks.rule()(name) is expected


def test_conf_lists_them_and_they_have_values_from_the_start(open_project):
    project = open_project(labels="liver", landmarks="nasion,inion")
    rule = project.landmarks.rule()
    assert [rule(name) for name in ("nasion", "inion", "liver")] == [True, True, False]
    assert project.labels.read() == {"liver": 1, "nasion": 2, "inion": 3}
    assert not project.landmarks.only()


def test_all_are(open_project):
    project = open_project(labels="liver", landmarks="all")
    assert project.landmarks.rule()("liver")
    assert project.landmarks.only()


def test_a_renamed_label_is_what_it_was_listed_as(open_project):
    project = open_project(landmarks="nasion,x landmark")
    content = json.loads(project.labels.path.read_text())
    content["labels"] = {"root of the nose": 1, "heart": 2}
    project.labels.path.write_text(json.dumps(content))
    rule = project.landmarks.rule()
    assert rule("root of the nose")
    assert rule("heart"), "it was listed under its name before"
    project = open_project()
    rule = project.landmarks.rule()
    assert not rule("root of the nose")
    assert not rule("heart"), "the name that it has today does not say so any more"


def test_a_name_with_points_in_a_file_is_one(open_project, studies):
    project = open_project()
    write_points(studies, "a.json", {"nasion": [1, 2, 3], "inion": None})
    markups = {
        "markups": [{"type": "Fiducial", "controlPoints": [{"label": "vertex", "position": [0, 0, 0]}]}]
    }
    write_points(studies, "b.mrk.json", markups)
    write_points(studies, "c.json", "no json")
    write_points(studies, "d.json", [1, 2])
    rule = project.landmarks.rule()
    assert [rule(name) for name in ("nasion", "inion", "vertex", "liver")] == [True, True, True, False]
    write_points(studies, "a.json", {"pogonion": [1, 2, 3]})
    assert project.landmarks.rule()("pogonion"), "a file that was replaced is read again"
    assert not project.landmarks.rule()("nasion")


@pytest.mark.parametrize(
    "content",
    [
        {"liver": "redraw"},
        {"liver": 3},
        {"liver": [1, 2, 3, 4]},
        {"liver": [1, 2, "x"]},
        {"liver": [True, True, True]},
        {"liver": {"found": True}},
        {"landmarks": {"liver": "redraw", "spleen": {"volume": 3}}},
        {"markups": [{"type": "Line", "controlPoints": [{"label": "liver", "position": [0, 0, 0]}]}]},
    ],
)
def test_other_json_in_the_folder_makes_no_landmark_of_an_organ(open_project, submit, studies, content):
    project = open_project()
    submit(project, "a", BOTH, ["liver", "spleen"])
    write_points(studies, "a.json", content)
    (template,) = project.templates(project.submissions())
    assert set(template.names) == {"liver", "spleen"}
    assert not project.landmarks.exist()


def test_what_predict_wrote_names_landmarks(open_project, studies):
    project = open_project()
    said = {"nasion": {"found": True, "ras": [1, 2, 3]}, "inion": {"found": False}}
    write_points(studies, "a.json", {"landmarks": said, "units": "mm"})
    rule = project.landmarks.rule()
    assert [rule(name) for name in ("nasion", "inion", "landmarks", "units")] == [True, True, False, False]


def test_points_of_no_image_make_no_landmark_of_an_organ(open_project, studies):
    project = open_project()
    write_points(studies, "c.json", {"liver": [1, 2, 3]})
    assert not project.landmarks.rule()("liver")
    assert project.landmarks.exist(), "whoever trains is told that there is no image c"
    (studies / "a.nii.gz").rename(studies / "c.nii.gz")
    project.datastore.refresh()
    assert project.landmarks.rule()("liver"), "a file may come before its image"


def test_more_than_label_maps_hold_are_no_reason_not_to_start(open_project, submit, caplog):
    project = open_project(landmarks=",".join(f"l{n}" for n in range(300)))
    assert len(project.labels.read()) == LARGEST
    assert "no room for 45 of --conf landmarks" in caplog.text
    with pytest.raises(FewshotError, match="one workspace holds 255"):
        project.labels.add(["liver"])
    assert project.landmarks.rule()("l299")


def test_what_is_drawn_counts_and_not_what_is_named(open_project, submit):
    project = open_project()
    assert not project.landmarks.exist()
    assert not project.landmarks.organ_exists()
    submit(project, "a", BOTH == 1, ["liver", "nasion landmark"])
    assert project.landmarks.organ_exists()
    assert not project.landmarks.exist(), "viewers name all segments, also those that are empty"
    submit(project, "a", 2 * (BOTH == 1), ["liver", "nasion landmark"])
    assert project.landmarks.exist()
    assert not project.landmarks.organ_exists()
    submit(project, "b", BOTH, ["liver", "nasion landmark"])
    assert project.landmarks.exist()
    assert project.landmarks.organ_exists()
