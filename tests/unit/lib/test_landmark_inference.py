"""Landmarks found in an image: balls for viewers, everything in the JSON, and files beside labels."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from fewshot.landmarks import Candidate, FoundLandmark
from fewshot.landmarks.files import read_points
from fewshot.landmarks.result import LandmarkPrediction
from fewshot.volumes import read_labels, read_volume
from lib.infers import LandmarkFinder, Segmentation
from lib.landmarks import computing, results
from lib.models import PublishedLandmarks, PublishedModels
from tests.unit.lib.conftest import write_label
from tests.unit.lib.landmarks import BOTH, CENTRES, LABELS, VOLUME, dots, millimetres, write_points

NAMES = list(CENTRES)


@pytest.fixture
def project(open_project, submit):
    project = open_project(labels="other", landmarks=",".join(NAMES))
    submit(project, "a", np.where(BOTH, BOTH + 2, LABELS), ["bright", "dark", *NAMES])
    return project


@pytest.fixture
def models(project):
    models = PublishedLandmarks("landmarks", project)
    models.publish(computing.fit(project.engine, project.landmarks.templates(), method="basic", device="cpu"))
    return models


@pytest.fixture
def task(project, models):
    return LandmarkFinder(models, project, description="test")


@pytest.fixture
def says(monkeypatch):
    """Lets the engine find certain landmarks; what is not given a place is not found."""

    def find(places):
        landmarks = {}
        for name, place in places.items():
            if place is None:
                landmarks[name] = FoundLandmark(name, found=False, confidence=0.2, reason="nothing")
            else:
                point = tuple(millimetres(place))
                landmarks[name] = FoundLandmark(name, True, 0.9, (Candidate(point, 0.9),))
        prediction = LandmarkPrediction(
            landmarks, VOLUME.affine, VOLUME.shape, provenance={"model": "x"}, notes=["a note"]
        )
        monkeypatch.setattr(computing, "find", lambda *_, **__: prediction)

    return find


def infer(task, studies, image="b", **request):
    file, result = task({"image": str(studies / f"{image}.nii.gz"), "device": "cpu", **request})
    return read_labels(file, read_volume(studies / f"{image}.nii.gz")), result


def test_landmarks_of_the_template_are_found_where_they_were_marked(task, project, studies):
    found, result = infer(task, studies, "a")
    assert result["label_names"] == {"other": 1, NAMES[0]: 2, NAMES[1]: 3, "bright": 4, "dark": 5}
    assert list(result["landmarks"]) == NAMES
    for value, name in enumerate(NAMES, start=2):
        told = result["landmarks"][name]
        assert told["found"]
        away = {
            other: np.linalg.norm(np.subtract(told["ras"], millimetres(CENTRES[other]))) for other in NAMES
        }
        assert min(away, key=away.get) == name
        assert away[name] < 20
        centre = np.argwhere(found == value).mean(0)
        assert np.abs(centre - told["voxel"]).max() < 1.5, "a ball shows where it is"
    assert result["units"] == "mm"
    assert result["provenance"]["method"] == "basic"
    assert result["version"] == task.models.versions()[0]
    json.dumps(result)


@pytest.mark.parametrize("sent", ["4", 4.0, [4]])
def test_the_radius_of_the_balls(task, studies, says, sent):
    says({NAMES[0]: (20, 18, 4)})
    found, _ = infer(task, studies, radius=sent)
    places = (VOLUME.affine @ np.c_[np.argwhere(found), np.ones((found > 0).sum())].T).T[:, :3]
    away = np.linalg.norm(places - millimetres((20, 18, 4)), axis=1)
    assert 3.9 < away.max() <= 4
    usual, _ = infer(task, studies, radius=0)
    model = task.models.load().radius
    assert (usual > 0).sum() > (found > 0).sum() if model > 4 else (usual > 0).sum() < (found > 0).sum()


@pytest.mark.parametrize("radius", [-1, "big", "inf"])
def test_a_radius_that_is_none(task, studies, radius):
    with pytest.raises(HTTPException, match="give millimetres") as refusal:
        infer(task, studies, radius=radius)
    assert refusal.value.status_code == 422


def test_what_is_not_there_is_told_and_not_painted(task, studies, says):
    says({NAMES[0]: None, NAMES[1]: (5, 5, 2)})
    found, result = infer(task, studies)
    assert set(np.unique(found)) == {0, 3}
    assert result["landmarks"][NAMES[0]] == {
        "found": False,
        "confidence": 0.2,
        "reason": "nothing",
        "candidates": [],
    }
    assert result["notes"] == ["a note"]


def test_todays_names(task, project, studies):
    content = json.loads(project.labels.path.read_text())
    content["labels"] = {"other": 1, "lamp": 2, NAMES[1]: 3, "bright": 4, "dark": 5}
    project.labels.path.write_text(json.dumps(content))
    found, result = infer(task, studies, "a")
    assert list(result["landmarks"]) == ["lamp", NAMES[1]]
    assert 2 in found


def test_more_than_fit_into_a_label_map(task, project, studies, says):
    places = {f"l{n}": (n % 38 + 1, (n // 38) * 4 + 1, 3) for n in range(270)}
    says(places)
    file, result = task({"image": str(studies / "b.nii.gz"), "device": "cpu", "radius": 0.1})
    assert nib.load(file).get_data_dtype() == np.uint8
    found = read_labels(file, VOLUME)
    assert len(result["landmarks"]) == 270
    assert all(told["found"] for told in result["landmarks"].values())
    assert len(result["label_names"]) == 255
    assert (found > 0).sum() == 250, "five values were taken"
    assert found.max() == 255
    (_, note) = result["notes"]
    assert note.startswith("20 of 270 landmarks are not in the label map, which holds 255 labels: l250, l251")


def test_viewers_see_it_and_its_options(task, project):
    info = task.info()
    assert (info["type"], info["dimension"]) == ("segmentation", 3)
    assert info["config"]["radius"] == 0.0
    assert info["config"]["version"] == ["latest", *task.models.versions()]
    assert info["labels"] == project.labels.read()


def test_slicer_runs_it_by_itself_where_all_labels_are_landmarks(open_project):
    """The plugin runs the first model that has the first label."""
    for labels, expected in (({}, "landmarks"), ({"labels": "liver"}, "fewshot")):
        project = open_project(landmarks="nasion", **labels)
        models = {
            "fewshot": Segmentation(PublishedModels("fewshot", project), project, description="test"),
            "landmarks": LandmarkFinder(
                PublishedLandmarks("landmarks", project), project, description="test"
            ),
        }
        first = next(iter(project.labels.read()))
        assert next(name for name, task in models.items() if first in task.info()["labels"]) == expected
        project.labels.path.unlink()


def test_an_unknown_version(task, studies):
    with pytest.raises(HTTPException, match="no version v9 of landmarks"):
        infer(task, studies, version="v9")


class TestFilesBesideLabels:
    def folder(self, studies, tag):
        return {path.name for path in (studies / "labels" / tag).iterdir() if path.is_file()}

    def test_of_what_somebody_submits(self, project, submit, studies):
        expected = {"a.nii.gz", "a.landmarks.json", "a.mrk.json"}
        assert self.folder(studies, "final") == expected
        for file in ("a.landmarks.json", "a.mrk.json"):
            marks, absent = read_points(studies / "labels" / "final" / file, VOLUME)
            assert (list(marks), absent) == (NAMES, frozenset())
            for name, centre in CENTRES.items():
                np.testing.assert_allclose(marks[name].point, millimetres(centre), atol=1e-3)
        submit(project, "a", np.where(BOTH, BOTH + 1, 0), ["bright", *NAMES], tag="original")
        assert self.folder(studies, "original") == expected
        assert read_points(studies / "labels" / "original" / "a.mrk.json")[0].keys() == set(NAMES)

    def test_segments_of_one_name_are_one_landmark(self, project, submit, studies):
        drawn = dots({1: (10, 10, 2)}) + dots({2: (14, 10, 4)})
        submit(project, "b", drawn, [NAMES[0], NAMES[0]])
        marks, _ = read_points(studies / "labels" / "final" / "b.mrk.json", VOLUME)
        np.testing.assert_allclose(marks[NAMES[0]].point, millimetres((12, 10, 3)), atol=1e-3)

    def test_they_go_with_the_landmarks_and_with_the_label(self, project, submit, studies):
        submit(project, "a", LABELS, ["bright", "dark"])
        assert self.folder(studies, "final") == {"a.nii.gz"}
        submit(project, "a", BOTH, NAMES)
        assert "a.mrk.json" in self.folder(studies, "final")
        project.datastore.remove_label("a", "final")
        assert self.folder(studies, "final") == set()

    def test_they_go_with_a_label_that_somebody_else_removed(self, project, studies):
        (studies / "labels" / "final" / "a.nii.gz").unlink()
        project.datastore.refresh()
        assert self.folder(studies, "final") == set()

    def test_they_go_with_a_label_that_went_with_its_image(self, project, studies):
        for file in (studies / "labels" / "final" / "a.nii.gz", studies / "a.nii.gz"):
            file.unlink()
        project.datastore.refresh()
        assert self.folder(studies, "final") == set()

    @pytest.mark.parametrize("removed", [False, True])
    def test_of_two_labels_that_come_at_once_they_are_those_of_the_one_that_stays(
        self, project, studies, tmp_path, monkeypatch, removed
    ):
        store, write = project.datastore, results._write
        writing, go_on = threading.Event(), threading.Event()

        def slow(*told):
            if not writing.is_set():
                writing.set()
                assert go_on.wait(20)
            write(*told)

        monkeypatch.setattr(results, "_write", slow)

        def first():
            dot = write_label(tmp_path / "1.nii.gz", dots({1: (10, 10, 2)}), studies / "b.nii.gz")
            store.save_label("b", str(dot), "final", {"label_info": [{"name": NAMES[0]}]})

        def second():
            dot = write_label(tmp_path / "2.nii.gz", dots({1: (20, 20, 5)}), studies / "b.nii.gz")
            store.save_label("b", str(dot), "final", {"label_info": [{"name": NAMES[1]}]})
            if removed:
                store.remove_label("b", "final")

        threads = [threading.Thread(target=save) for save in (first, second)]
        threads[0].start()
        assert writing.wait(20)
        threads[1].start()
        threads[1].join(0.5)  # time enough to overtake the first one, if it could
        go_on.set()
        for thread in threads:
            thread.join(20)
        beside = studies / "labels" / "final" / "b.mrk.json"
        if removed:
            assert not [name for name in self.folder(studies, "final") if name.startswith("b.")]
        else:
            assert set(read_points(beside)[0]) == {NAMES[1]}

    @pytest.mark.parametrize(("complete", "absent"), [("true", {NAMES[1]}), ("false", set())])
    def test_in_a_complete_label_what_is_not_marked_is_absent(
        self, open_project, submit, studies, complete, absent
    ):
        project = open_project(landmarks=",".join(NAMES), complete=complete)
        submit(project, "b", dots({1: (10, 10, 2)}), NAMES)
        told = project.results.submitted("b")
        assert {name for name, of in told.landmarks.items() if not of.found} == absent
        for file in ("b.landmarks.json", "b.mrk.json"):
            marks, missing = read_points(studies / "labels" / "final" / file, VOLUME)
            assert (set(marks), missing) == ({NAMES[0]}, absent)

    def test_of_what_a_model_found(self, task, project, studies, says):
        says({NAMES[0]: (5, 5, 2), NAMES[1]: None})
        file, result = task({"image": str(studies / "b.nii.gz"), "result_extension": ".nii.gz"})
        project.datastore.save_label("b", file, "original", {"model": "landmarks", "params": result})
        marks, absent = read_points(studies / "labels" / "original" / "b.mrk.json")
        np.testing.assert_allclose(marks[NAMES[0]].point, millimetres((5, 5, 2)))
        assert absent == {NAMES[1]}
        plain = json.loads((studies / "labels" / "original" / "b.landmarks.json").read_text())
        assert plain["landmarks"] == result["landmarks"]
        assert project.submissions()[0].image_id == "a"
        assert len(project.submissions()) == 1

    def test_a_datastore_takes_them_for_nothing(self, project, submit, studies, open_project):
        again = open_project(landmarks=",".join(NAMES))
        assert again.datastore.list_images() == ["a", "b"]
        entry = again.datastore.json()["objects"]["a"]
        assert list(entry["labels"]) == ["final"]
        assert entry["labels"]["final"]["ext"] == ".nii.gz"

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no JSON")])
    def test_a_label_is_stored_even_where_they_cannot_be_written(
        self, project, submit, studies, monkeypatch, caplog, error
    ):
        def full(*_, **__):
            raise error

        monkeypatch.setattr("lib.landmarks.results.write_json", full)
        submit(project, "b", BOTH, NAMES)
        assert "b.nii.gz" in self.folder(studies, "final")
        assert "landmarks of b were not written beside its label" in caplog.text

    def test_a_label_is_stored_even_where_its_points_are_none(self, task, project, studies, says, caplog):
        says({NAMES[0]: (5, 5, 2)})
        file, result = task({"image": str(studies / "b.nii.gz"), "result_extension": ".nii.gz"})
        result["landmarks"][NAMES[0]]["candidates"][0]["ras"][0] = float("nan")
        project.datastore.save_label("b", file, "original", {"model": "landmarks", "params": result})
        assert self.folder(studies, "original") == {"b.nii.gz"}
        assert "landmarks of b were not written beside its label" in caplog.text


class TestLastResults:
    def result(self, task, studies, places, says):
        says(places)
        return infer(task, studies)[1]

    def test_what_was_found_is_kept(self, task, project, studies, says):
        assert project.results.last("landmarks", "b", "v") is None
        result = self.result(task, studies, {NAMES[0]: (5, 5, 2), NAMES[1]: None}, says)
        project.results.keep("landmarks", "b", result)
        kept = project.results.last("landmarks", "b", result["version"])
        assert kept.to_json()["landmarks"] == result["landmarks"]
        assert kept.shape == VOLUME.shape
        np.testing.assert_array_equal(kept.affine, VOLUME.affine)
        assert (kept.notes, kept.provenance) == (["a note"], {"model": "x"})

    def test_it_does_not_count_for_another_version_or_image(self, task, project, studies, says):
        result = self.result(task, studies, {NAMES[0]: (5, 5, 2)}, says)
        project.results.keep("landmarks", "b", result)
        assert project.results.last("landmarks", "b", "0002") is None
        assert project.results.last("landmarks", "a", result["version"]) is None
        assert project.results.last("other", "b", result["version"]) is None
        (studies / "b.nii.gz").write_bytes((studies / "a.nii.gz").read_bytes())
        assert project.results.last("landmarks", "b", result["version"]) is None

    def test_a_damaged_one_is_found_again(self, task, project, studies, says):
        result = self.result(task, studies, {NAMES[0]: (5, 5, 2)}, says)
        project.results.keep("landmarks", "b", result)
        project.workspace.landmarks("landmarks").joinpath("b.json").write_text("{")
        assert project.results.last("landmarks", "b", result["version"]) is None

    def test_it_goes_with_the_image(self, task, project, studies, says):
        result = self.result(task, studies, {NAMES[0]: (5, 5, 2)}, says)
        folder = project.workspace.landmarks("landmarks")
        for image in "ab":
            project.results.keep("landmarks", image, result)
        project.datastore.remove_image("b")
        assert [file.name for file in folder.iterdir()] == ["a.json"]
        (studies / "a.nii.gz").unlink()
        project.datastore.refresh()
        assert list(folder.iterdir()) == []

    def test_it_is_told_under_todays_names(self, task, project, studies, says):
        result = self.result(task, studies, {NAMES[0]: (5, 5, 2), NAMES[1]: None}, says)
        project.results.keep("landmarks", "b", result)
        content = json.loads(project.labels.path.read_text())
        content["labels"] = {"other": 1, "lamp": 2, NAMES[1]: 3, "bright": 4, "dark": 5}
        project.labels.path.write_text(json.dumps(content))
        last = project.results.last("landmarks", "b", result["version"])
        assert {key: of.name for key, of in last.landmarks.items()} == {"lamp": "lamp", NAMES[1]: NAMES[1]}
        assert last.to_json()["landmarks"]["lamp"] == result["landmarks"][NAMES[0]]

    def test_what_people_marked(self, project, studies):
        told = project.results.submitted("a")
        assert list(told.landmarks) == NAMES
        assert all(of.found and of.confidence == 1 for of in told.landmarks.values())
        assert told.provenance == {"method": "marked by hand"}
        with pytest.raises(HTTPException) as refusal:
            project.results.submitted("b")
        assert (refusal.value.status_code, refusal.value.detail) == (
            404,
            "Nobody has submitted landmarks of b.",
        )
        write_points(studies, "b.json", {"vertex": [900, 2, 3]})
        with pytest.raises(HTTPException, match="of b. landmarks/b.json: landmark vertex lies outside"):
            project.results.submitted("b")
