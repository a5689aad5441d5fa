"""Landmarks from the first dot to points in every volume, as an annotator in Slicer and a program see them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from fewshot.landmarks.files import read_points
from fewshot.phantoms import ORGANS
from tests.server.conftest import Server, sentence, wait_for
from tests.server.slicer import Slicer

pytestmark = pytest.mark.server
NAMES = ("liver landmark", "kidney_left landmark")
IMAGES = {"marked": "ct_0", "pointed": "ct_1", "unseen": "ct_2"}
"""Copies of the studies that other tests label: what is marked here must not be in their way."""


@dataclass
class Marked:
    """A server with a model of landmarks, and what a viewer saw on the way."""

    server: Server
    slicer: Slicer
    truth: dict[str, dict[str, np.ndarray]]
    trained: dict[str, Any]

    def get(self, image: str, **params: str) -> requests.Response:
        return requests.get(f"{self.server.url}/landmarks/{image}", params=params, timeout=300)


def middle(labels: np.ndarray, organ: str) -> np.ndarray:
    """The voxel of an organ that is nearest to its middle."""
    voxels = np.argwhere(labels == ORGANS[organ])
    return voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]


def places(labels: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Where the landmarks are, RAS mm."""
    return {name: nib.affines.apply_affine(affine, middle(labels, name.split()[0])) for name in NAMES}


def test_before_anything_it_says_what_to_do_first(fresh: Server):
    first = sentence(fresh.infer("landmarks", "ct_0"), 409)
    assert first.startswith("No landmark yet: mark one with a dot in one study")
    for path in ("landmarks/ct_0", "landmarks/ct_0?format=mrk"):
        assert sentence(requests.get(f"{fresh.url}/{path}", timeout=300), 409) == first
    assert sentence(requests.post(f"{fresh.url}/train/landmarks", json={}, timeout=300), 409) == first
    info = fresh.client.info()
    assert info["models"]["landmarks"]["type"] == "segmentation"
    assert list(info["trainers"]["landmarks"]["config"]) == ["method", "max_epochs", "radius", "device"]


@pytest.fixture(scope="module")
def marked(annotated: Server, truth: dict[str, np.ndarray], tmp_path_factory: Any) -> Iterator[Marked]:
    """One image marked with dots among organs, one by a file, one by nobody; a bad file; one training."""
    server, folder = annotated, annotated.studies / "landmarks"
    for name, study in IMAGES.items():
        server.client.upload_image(str(server.studies / f"{study}.nii.gz"), name)
    known = {
        name: places(truth[study], nib.load(server.studies / f"{study}.nii.gz").affine)
        for name, study in IMAGES.items()
    }
    slicer = Slicer(server.url, tmp_path_factory.mktemp("slicer"))
    slicer.connect()
    segments = {"liver": truth["ct_0"] == ORGANS["liver"]}
    for name in NAMES:
        x, y, z = middle(truth["ct_0"], name.split()[0])
        segments[name] = np.zeros(truth["ct_0"].shape, bool)
        segments[name][x - 1 : x + 2, y - 1 : y + 2, z] = True
    slicer.submit("marked", server.studies / "ct_0.nii.gz", segments)
    folder.mkdir()
    points = {name: place.tolist() for name, place in known["pointed"].items()}
    (folder / "pointed.json").write_text(json.dumps(points))
    (folder / "unseen.mrk.json").write_text(json.dumps({"markups": [{"type": "Line"}]}))
    try:
        slicer.train("landmarks", method="classification", max_epochs=6, device="cpu")
        yield Marked(server, slicer, known, slicer.info["train_stats"]["landmarks"])
    finally:
        shutil.rmtree(folder)
        for name in IMAGES:
            requests.delete(f"{server.url}/datastore/image", params={"id": name}, timeout=300)
        wait_for(lambda: not set(IMAGES) & set(server.client.datastore()["objects"]))


def test_dots_and_files_were_learned_and_a_bad_file_is_told(marked: Marked):
    assert marked.trained["templates"] == ["marked", "pointed"]
    assert sorted(marked.trained["labels"]) == sorted(NAMES)
    assert "ct_0" in marked.trained["left_out"], "there are organs alone"
    assert "are no landmarks" in marked.trained["left_out"]["landmarks/unseen.mrk.json"]
    assert marked.trained["total_time"]
    running = [entry for entry in marked.slicer.progress if entry and "total_time" not in entry]
    assert {entry["model"] for entry in running} == {"landmarks"}
    assert marked.slicer.info["datastore"]["total"] == 7, "files with points are no images"


def test_in_slicer_landmarks_are_balls_and_organs_are_left_to_the_adapters(marked: Marked):
    file = marked.server.studies / "unseen.nii.gz"
    segments, told = marked.slicer.segment("landmarks", "unseen", file)
    affine = nib.load(file).affine
    assert set(told["landmarks"]) == set(NAMES)
    shown = {name for name, mask in segments.items() if mask.any()}
    assert shown == {name for name, of in told["landmarks"].items() if of["found"]}
    for name in shown:
        inside = nib.affines.apply_affine(affine, np.argwhere(segments[name]))
        nearest = np.linalg.norm(inside - told["landmarks"][name]["ras"], axis=1).min()
        assert nearest < np.linalg.norm(affine[:3, :3].sum(1))
    assert told["provenance"]["method"] == "classification"
    large, _ = marked.slicer.client.infer(
        "landmarks", "unseen", {"radius": "30", "result_extension": ".nii.gz"}
    )
    assert (nib.load(large).get_fdata() > 0).sum() > sum(mask.sum() for mask in segments.values())

    segments, told = marked.slicer.segment("fewshot_basic", "unseen", file)
    assert {name for name, mask in segments.items() if mask.any()} == {"liver", "spleen"}
    assert told["provenance"]["templates"] == ["ct_0", "marked"]


def test_landmarks_of_a_template_are_found_near_to_where_they_were_marked(marked: Marked):
    told = marked.get("marked").json()
    for name, place in marked.truth["marked"].items():
        assert told["landmarks"][name]["found"]
        others = [other for other in NAMES if other != name]
        away = np.linalg.norm(told["landmarks"][name]["ras"] - place)
        assert away < min(
            np.linalg.norm(told["landmarks"][name]["ras"] - marked.truth["marked"][o]) for o in others
        )


def test_a_program_gets_what_was_found_last_and_it_is_not_found_again(marked: Marked):
    _, told = marked.slicer.client.infer("landmarks", "unseen", {"result_extension": ".nrrd"})
    answer = marked.get("unseen")
    assert answer.status_code == 200
    assert answer.json()["landmarks"] == told["landmarks"]
    assert answer.json()["timings"] == told["timings"], "it is the very result"
    markups = marked.get("unseen", format="mrk")
    assert "unseen.mrk.json" in markups.headers["Content-Disposition"]
    (marked.slicer.folder / "got.mrk.json").write_bytes(markups.content)
    marks, absent = read_points(marked.slicer.folder / "got.mrk.json")
    assert set(marks) | absent == set(NAMES)
    for name, mark in marks.items():
        np.testing.assert_allclose(mark.point, told["landmarks"][name]["ras"], atol=1e-3)


def test_a_program_may_ask_for_an_image_that_nobody_has_looked_at(marked: Marked):
    first = marked.get("pointed")
    assert first.status_code == 200
    assert set(first.json()["landmarks"]) == set(NAMES)
    assert marked.get("pointed").json() == first.json(), "the second time it is known"


def test_what_people_marked_can_be_had_as_well(marked: Marked):
    for image in ("marked", "pointed"):
        told = marked.get(image, tag="final").json()
        for name, place in marked.truth[image].items():
            np.testing.assert_allclose(told["landmarks"][name]["ras"], place, atol=1e-2)
    refusal = sentence(marked.get("unseen", tag="final"), 404)
    assert "Nobody has submitted" in refusal
    assert "are no landmarks" in refusal, "there is a file"


def test_files_lie_beside_labels(marked: Marked):
    labels = marked.server.studies / "labels"
    assert set(read_points(labels / "final" / "marked.mrk.json")[0]) == set(NAMES)
    _, told = marked.slicer.client.infer(
        "landmarks", "unseen", {"save_label": True, "result_extension": ".nii.gz"}
    )
    plain = json.loads((labels / "original" / "unseen.landmarks.json").read_text())
    assert plain["landmarks"] == told["landmarks"]
    found = {name for name, of in told["landmarks"].items() if of["found"]}
    assert set(read_points(labels / "original" / "unseen.mrk.json")[0]) == found
    objects = marked.server.client.datastore()["objects"]
    assert set(objects["unseen"]["labels"]) == {"original"}
    assert not {name for name in objects if "landmarks" in name or "mrk" in name}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nowhere", 404, "There is no image nowhere in these studies"),
        ("unseen?model=fewshot", 404, "fewshot finds no landmarks here; there is landmarks"),
        ("unseen?version=v9", 404, "There is no version v9 of landmarks"),
        ("unseen?tag=other", 422, "no landmarks with the tag other"),
        ("unseen?format=sr", 422, "ask for json or mrk"),
    ],
)
def test_what_cannot_be_had_is_told(marked: Marked, path: str, status: int, words: str):
    answer = requests.get(f"{marked.server.url}/landmarks/{path}", timeout=300)
    assert words in sentence(answer, status)


def test_only_a_pacs_keeps_reports(marked: Marked):
    answer = requests.post(f"{marked.server.url}/landmarks/unseen/sr", timeout=300)
    assert "this server has a folder of studies" in sentence(answer, 422)
