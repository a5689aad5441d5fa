"""Landmarks and organs in one label map: each model learns its own, and neither is in the way of the other."""

import json

import numpy as np
import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from fewshot.errors import FewshotError
from lib.landmarks.labelled import NO_LANDMARK, NO_LANDMARK_MARKED, ONLY_LANDMARKS
from lib.landmarks.separating import fill_dots, slice_axis
from lib.models import NO_ORGAN, NO_TEMPLATE, FittedModels, PublishedLandmarks, PublishedModels
from tests.unit.conftest import blobs
from tests.unit.lib.landmarks import BOTH, CENTRES, LABELS, VOLUME, dots, millimetres, write_points

MARKED = ["bright middle landmark", "dark middle landmark"]


def refusal(call, *arguments, **options):
    with pytest.raises(HTTPException) as told:
        call(*arguments, **options)
    return told.value.status_code, told.value.detail


class TestDotsInOrgans:
    def test_a_dot_in_an_organ_is_the_organ(self):
        drawn = np.where(dots({1: CENTRES["bright middle"]}), 3, LABELS)
        np.testing.assert_array_equal(fill_dots(drawn, [3], 2, VOLUME.spacing), LABELS)

    def test_one_outside_is_background(self):
        drawn = np.where(dots({1: (20, 4, 4)}), 3, LABELS)
        np.testing.assert_array_equal(fill_dots(drawn, [3], 2, VOLUME.spacing), LABELS)

    def test_one_on_a_border_is_divided(self):
        half = np.zeros((20, 20, 3), np.uint16)
        half[:10] = 1
        drawn = half.copy()
        drawn[8:12, 8:12, 1] = 2
        np.testing.assert_array_equal(fill_dots(drawn, [2], 2, (1, 1, 1)), half)

    def test_a_slice_with_nothing_but_dots_is_one_without_label(self):
        drawn = np.zeros(LABELS.shape, np.uint16)
        drawn[..., 3] = LABELS[..., 3]
        truth = drawn.copy()
        drawn[10:13, 10:13, 5] = 3
        np.testing.assert_array_equal(fill_dots(drawn, [3], 2, VOLUME.spacing), truth)

    def test_the_slices_are_those_that_people_draw_on(self):
        drawn = np.zeros((9, 9, 9), np.uint16)
        drawn[4] = 1
        truth = drawn.copy()
        drawn[3:6, 3:6, 3:6] = 2
        np.testing.assert_array_equal(fill_dots(drawn, [2], 0, (1, 1, 1)), truth)
        assert slice_axis(VOLUME, "auto") == 2
        assert slice_axis(VOLUME, "sagittal") == 0

    @given(
        st.lists(st.tuples(*(st.integers(0, side - 1) for side in (8, 7, 3))), max_size=40), st.integers(0, 2)
    )
    def test_nothing_else_changes_and_no_dot_is_left(self, places, axis):
        drawn = np.tile(np.array([0, 1, 1, 2, 2, 2, 0, 0], np.uint16)[:, None, None], (1, 7, 3))
        before = drawn.copy()
        for place in places:
            drawn[place] = 9
        filled = fill_dots(drawn, [9], axis, (1.0, 2.0, 3.0))
        assert set(np.unique(filled)) <= {0, 1, 2}
        np.testing.assert_array_equal(filled[drawn != 9], before[drawn != 9])


class TestOrgans:
    def test_adapters_learn_the_organs_alone(self, open_project, submit):
        project = open_project()
        drawn = np.where(BOTH, BOTH + 2, LABELS)
        submit(project, "a", drawn, ["bright", "dark", *MARKED])
        (template,) = project.templates(project.submissions())
        np.testing.assert_array_equal(template.labels, LABELS)
        assert template.names == {"bright": 1, "dark": 2}
        assert project.drawn_labels([template]) == {"bright": 1, "dark": 2}

    def test_an_adapter_with_dots_finds_what_one_without_finds(self, open_project, submit):
        project, found = open_project(), {}
        for name, drawn in {"plain": LABELS, "dotted": np.where(BOTH, BOTH + 2, LABELS)}.items():
            submit(project, "a", drawn, ["bright", "dark", *MARKED])
            model = FittedModels("basic", project).load(device="cpu")
            found[name] = project.engine.predict(blobs(1)[0], model, components="all", device="cpu").labels
        np.testing.assert_array_equal(found["plain"], found["dotted"])

    def test_a_label_with_nothing_but_landmarks_is_left_out(self, open_project, submit):
        project = open_project()
        submit(project, "a", LABELS, ["bright", "dark"])
        submit(project, "b", BOTH, MARKED)
        templates = project.templates(project.submissions())
        assert templates.images == ["a"]
        assert templates.left_out == {"b": ONLY_LANDMARKS}
        assert not templates.passing
        assert FittedModels("basic", project).load(device="cpu").templates == ["a"]

    def test_with_landmarks_alone_the_adapters_say_what_is_missing(self, open_project, submit):
        project = open_project()
        assert refusal(project.require_templates) == (409, NO_TEMPLATE)
        submit(project, "a", BOTH, MARKED)
        for call in (
            project.require_templates,
            PublishedModels("fewshot", project).require,
            FittedModels("basic", project).require,
            FittedModels("basic", project).load,
        ):
            assert refusal(call) == (409, NO_ORGAN)
        PublishedLandmarks("landmarks", project)  # and landmarks are ready to be trained:
        project.landmarks.require()


class TestLandmarks:
    def test_with_organs_alone_it_says_what_is_missing(self, open_project, submit):
        project = open_project()
        assert refusal(project.landmarks.require) == (409, NO_LANDMARK)
        submit(project, "a", LABELS, ["bright", "dark"])
        models = PublishedLandmarks("landmarks", project)
        assert refusal(models.require) == refusal(models.load) == (409, NO_LANDMARK)
        submit(project, "b", BOTH, MARKED)
        told = "landmarks is not trained yet: press Train, then run again."
        assert refusal(models.require) == (409, told)

    def test_dots_are_points(self, open_project, submit):
        project = open_project()
        submit(project, "a", np.where(BOTH, BOTH + 2, LABELS), ["bright", "dark", *MARKED])
        submit(project, "b", LABELS, ["bright", "dark"])
        templates = project.landmarks.templates()
        assert (templates.images, templates.left_out) == (["a"], {"b": NO_LANDMARK_MARKED})
        (template,) = templates
        for name, centre in zip(MARKED, CENTRES.values(), strict=True):
            np.testing.assert_allclose(template.marks[name].point, millimetres(centre), atol=1e-6)
            assert 0 < template.marks[name].spread < 4
        assert template.absent == frozenset()

    def test_several_dots_of_one_name_are_one_landmark(self, open_project, submit):
        project = open_project(landmarks="nasion")
        drawn = dots({1: (10, 10, 2)}) + dots({2: (14, 10, 4)})
        submit(project, "a", drawn, ["nasion", "nasion"])
        (template,) = project.landmarks.templates()
        np.testing.assert_allclose(template.marks["nasion"].point, millimetres((12, 10, 3)), atol=1e-6)

    def test_in_a_complete_template_what_is_not_marked_is_not_there(self, open_project, submit):
        for complete, absent in (("false", set()), ("true", {"inion"})):
            project = open_project(landmarks="nasion,inion", complete=complete)
            submit(project, "a", dots({1: (10, 10, 2)}), ["nasion", "inion"])
            (template,) = project.landmarks.templates()
            assert template.absent == absent

    def test_what_landmarks_are_is_asked_once_however_many_there_are(
        self, open_project, submit, studies, monkeypatch
    ):
        project, asked = open_project(), []
        write_points(studies, "b.json", {"nasion": millimetres((5, 5, 5))})
        submit(project, "a", BOTH, MARKED)
        (template,) = [project.template(of) for of in project.submissions()]
        files = project.landmarks.folder.files
        monkeypatch.setattr(project.landmarks.folder, "files", lambda: asked.append(1) or files())
        assert set(project.landmarks.of_labels(template).marks) == set(MARKED)
        assert len(asked) == 1

    def test_an_organ_that_is_called_a_landmark_is_told(self, open_project, submit, caplog):
        project = open_project(landmarks="all")
        large = np.zeros(LABELS.shape, np.uint8)
        large[2:38, 2:34, 1:7] = 1
        submit(project, "a", large, ["body"])
        submit(project, "b", dots({1: (10, 10, 2)}), ["body"])
        templates = project.landmarks.templates()
        assert list(templates.warnings) == ["a"]
        assert "Landmark body of a is as large as an organ" in templates.warnings["a"]
        assert templates.warnings["a"] in caplog.text
        assert templates.told() == {"warnings": templates.warnings}
        assert templates.images == ["a", "b"]


class TestFiles:
    def test_a_file_is_a_template_of_its_image(self, open_project, studies):
        project = open_project()
        write_points(studies, "a.json", {"nasion": millimetres((12, 14, 4)), "inion": None})
        project.landmarks.require()
        (template,) = project.landmarks.templates()
        np.testing.assert_allclose(template.marks["nasion"].point, millimetres((12, 14, 4)))
        assert template.absent == {"inion"}
        assert project.datastore.list_images() == ["a", "b"], "the file is no image"

    def test_markups_of_slicer_too(self, open_project, studies):
        project = open_project()
        x, y, z = millimetres((12, 14, 4))
        control = {"label": "nasion", "position": [-x, -y, z], "positionStatus": "defined"}
        markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [control]}
        write_points(studies, "b.mrk.json", {"markups": [markup]})
        templates = project.landmarks.templates()
        assert templates.images == ["b"]
        np.testing.assert_allclose(templates[0].marks["nasion"].point, (x, y, z))

    def test_it_adds_to_what_somebody_submitted_and_never_overrides_it(self, open_project, submit, studies):
        project = open_project()
        submit(project, "a", dots({1: (12, 14, 4)}), ["nasion"])
        write_points(
            studies,
            "a.json",
            {"nasion": millimetres((1, 1, 1)), "inion": millimetres((5, 5, 5)), "vertex": None},
        )
        write_points(studies, "a.mrk.json", {"markups": []})
        templates = project.landmarks.templates()
        (template,) = templates
        np.testing.assert_allclose(template.marks["nasion"].point, millimetres((12, 14, 4)), atol=1e-6)
        np.testing.assert_allclose(template.marks["inion"].point, millimetres((5, 5, 5)))
        assert template.absent == {"vertex"}
        assert "has no landmark" in templates.left_out["landmarks/a.mrk.json"]

    def test_what_a_file_says_is_absent_and_somebody_marked_is_there(self, open_project, submit, studies):
        project = open_project()
        submit(project, "a", dots({1: (12, 14, 4)}), ["nasion"])
        write_points(studies, "a.json", {"nasion": None, "inion": millimetres((5, 5, 5))})
        (template,) = project.landmarks.templates()
        assert set(template.marks) == {"nasion", "inion"}
        assert not template.absent

    def test_it_is_read_beside_a_label_of_organs(self, open_project, submit, studies):
        project = open_project()
        submit(project, "a", LABELS, ["bright", "dark"])
        write_points(studies, "a.json", {"nasion": millimetres((12, 14, 4))})
        templates = project.landmarks.templates()
        assert (templates.images, templates.left_out) == (["a"], {})
        assert project.templates(project.submissions()).images == ["a"]

    @pytest.mark.parametrize(
        ("file", "points", "sentence"),
        [
            ("b.json", "{", "landmarks/b.json cannot be read as JSON"),
            ("b.json", {"nasion": [1, 2]}, "landmarks/b.json: landmark nasion has the position"),
            ("b.json", {"nasion": [900, 2, 3]}, "lies outside the image b"),
            ("b.json", {"x": [8, 8, 6], "y": [8, 8, 6]}, "two landmarks at one place, x and y"),
            ("b.mrk.json", {"markups": [{"type": "Line", "controlPoints": []}]}, "are no landmarks"),
            ("c.json", {"nasion": [8, 8, 6]}, "There is no image c in these studies"),
            ("b.json", {"background": [8, 8, 6]}, "cannot be called background"),
        ],
    )
    def test_a_bad_one_is_told_and_the_others_count(
        self, open_project, submit, studies, caplog, file, points, sentence
    ):
        project = open_project()
        submit(project, "a", BOTH, MARKED)
        write_points(studies, file, points)
        templates = project.landmarks.templates()
        assert templates.images == ["a"]
        ((told, reason),) = templates.left_out.items()
        assert told == f"landmarks/{file}"
        assert sentence in reason
        assert "are left out" in caplog.text

    def test_a_file_under_a_former_name(self, open_project, submit, studies):
        project = open_project(landmarks="nasion")
        content = json.loads(project.labels.path.read_text())
        content["labels"] = {"root": 1}
        project.labels.path.write_text(json.dumps(content))
        write_points(studies, "a.json", {"nasion": millimetres((12, 14, 4))})
        (template,) = project.landmarks.templates()
        assert set(template.marks) == {"root"}

    @pytest.mark.parametrize("root", [millimetres((20, 20, 4)), None])
    def test_two_names_that_are_one_label_today_are_told(self, open_project, studies, root):
        project = open_project(landmarks="nasion")
        content = json.loads(project.labels.path.read_text())
        content["labels"] = {"root": 1}
        project.labels.path.write_text(json.dumps(content))
        write_points(studies, "a.json", {"nasion": millimetres((12, 14, 4)), "root": root})
        templates = project.landmarks.templates()
        assert not templates
        told = "landmarks/a.json has nasion and root, which are one label today, root: remove one of them."
        assert templates.left_out == {"landmarks/a.json": told}

    def test_a_submission_that_cannot_be_read_stops_it(self, open_project, submit, studies):
        project = open_project()
        submit(project, "a", BOTH, MARKED)
        (studies / "labels" / "final" / "a.nii.gz").write_bytes(b"broken")
        with pytest.raises(FewshotError, match="cannot be read"):
            project.landmarks.templates()
