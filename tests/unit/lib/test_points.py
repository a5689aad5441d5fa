"""Clicks: what viewers send is understood or refused with a sentence, and the answer is what they can show."""

import json
import threading
import time

import numpy as np
import pytest
import SimpleITK as sitk
from fastapi import HTTPException

from fewshot.errors import FewshotError
from fewshot.refine import clicks as engine_clicks
from fewshot.refine.clicks import Clicked
from fewshot.volumes import read_labels, read_volume
from lib.click_warming import ClickWarmer, outwards
from lib.configs.registry import CONFIGS
from lib.infers import Points
from lib.infers.requests import read_clicks
from tests.unit.conftest import blobs
from tests.unit.lib.test_background import wait_for

LABELS = blobs(0)[1]
SHAPE = LABELS.shape
INSIDE = [int(index) for index in np.argwhere(LABELS == 1).mean(0)]


class TestRequests:
    """SmartEdit's and Point Prompts' requests."""

    def test_slicer_on_one_slice(self):
        sent = {
            "label": " liver ",
            "foreground": [[1, 2, 3], [4, 5, 6], [1, 2, 3]],
            "background": [[7, 8, 3]],
            "slice": 3,
        }
        wanted = read_clicks(sent, (9, 9, 9), one_slice=True)
        assert (wanted.label, wanted.foreground, wanted.background) == ("liver", [(1, 2, 3)], [(7, 8, 3)])
        assert wanted.notes == []

    def test_slicer_on_the_first_slice_sends_the_points_of_all(self):
        sent = {"foreground": [[1, 2, 0], [4, 5, 6]], "slice": 0}
        assert read_clicks(sent, (9, 9, 9), one_slice=True).foreground == [(1, 2, 0)]

    @pytest.mark.parametrize("one_slice", [False, True])
    def test_ohif_names_neither_label_nor_slice(self, one_slice):
        wanted = read_clicks(
            {"foreground": [[1.0, 2.4, 3]], "background": []}, (9, 9, 9), one_slice=one_slice
        )
        assert (wanted.label, wanted.foreground) == ("foreground", [(1, 2, 3)])

    def test_through_the_volume_all_points_count(self):
        sent = {"foreground": [[1, 2, 3], [4, 5, 6]], "slice": 3}
        assert len(read_clicks(sent, (9, 9, 9), one_slice=False).foreground) == 2

    def test_a_box_is_told_to_be_unused(self):
        wanted = read_clicks(
            {"foreground": [[1, 2, 3]], "roi": [0, 4, 0, 4, 3, 3]}, (9, 9, 9), one_slice=True
        )
        assert "box" in wanted.notes[0]

    @pytest.mark.parametrize(
        ("sent", "sentence"),
        [
            ({}, "no foreground point: click inside"),
            ({"foreground": [], "background": [[1, 1, 1]]}, "no foreground point"),
            ({"foreground": [[1, 1, 2]], "slice": 1}, "no foreground point on slice 1"),
            ({"foreground": [[1, 1, 9]]}, r"foreground point \[1, 1, 9\] lies outside .* 9 x 9 x 9"),
            (
                {"foreground": [[1, 1, 1]], "background": [[-1, 1, 1]]},
                r"background point \[-1, 1, 1\] lies outside",
            ),
            ({"foreground": [[1, 1]]}, r"foreground point \[1, 1\] is no voxel"),
            ({"foreground": [[1, 1, "2"]]}, "is no voxel"),
            ({"foreground": [[1, 1, True]]}, "is no voxel"),
            ({"foreground": [[1, 1, float("nan")]]}, "is no voxel"),
            ({"foreground": [3]}, "point 3 is no voxel"),
            ({"foreground": "[[1, 1, 1]]"}, "send a list of points"),
            ({"foreground": [[1, 1, 1]], "slice": "x"}, "slice is 'x'"),
            ({"foreground": [[1, 1, 1]], "slice": 9}, "slice is 9"),
            ({"foreground": [[1, 1, 1]], "background": [[1, 1, 1]]}, "foreground and background at once"),
            ({"foreground": [[1, 1, 1]], "label": "background"}, "cannot be called background"),
            ({"foreground": [[1, 1, 1]], "label": 7}, "readable"),
        ],
    )
    def test_what_is_no_click_is_told(self, sent, sentence):
        with pytest.raises(FewshotError, match=sentence) as refusal:
            read_clicks(sent, (9, 9, 9), one_slice=True)
        assert "\n" not in str(refusal.value)


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the engine's segmentation: the true label 1 on the clicked slices, or everywhere."""
    seen = []

    def segment(volume, clicks, *, whole, slice_axis, **how):
        seen.append({"clicks": clicks, "whole": whole, **how})
        mask = LABELS == 1
        assert slice_axis == 2
        if not whole:
            mask[:, :, [k for k in range(SHAPE[2]) if k not in {point[2] for point in clicks.foreground}]] = (
                False
            )
        return Clicked(mask, "walker", ["a note"], {"total": 0.1})

    monkeypatch.setattr(engine_clicks, "segment_clicks", segment)
    monkeypatch.setattr("fewshot.refine.sam.at_hand.sam_at_hand", lambda name: False)
    return seen


class TestPoints:
    @pytest.mark.parametrize("whole", [False, True])
    def test_the_answer(self, asked, open_project, studies, whole):
        project = open_project()
        task = Points(project, whole=whole, description="test")
        path = studies / "a.nii.gz"
        file, result = task(
            {
                "image": str(path),
                "label": "liver",
                "foreground": [INSIDE],
                "background": [],
                "slice": INSIDE[2],
                "result_extension": ".nrrd",
                "result_dtype": "uint8",
                "device": "cpu",
            }
        )
        found = read_labels(file, read_volume(path))
        expected = (LABELS == 1).copy()
        if not whole:
            expected[:, :, np.arange(SHAPE[2]) != INSIDE[2]] = False
        np.testing.assert_array_equal(found, expected.astype(np.uint8))
        assert sitk.ReadImage(file).GetPixelID() == sitk.sitkUInt8
        assert result["label_names"] == {"liver": 1}
        assert (result["how"], result["notes"], result["timings"]) == ("walker", ["a note"], {"total": 0.1})
        assert result["provenance"]["slices"] == [INSIDE[2]]
        assert asked[0]["whole"] is whole
        assert asked[0]["spec"] == project.engine.slicing([read_volume(path)])
        assert project.labels.read() == {}, "a click teaches no name"
        json.dumps(result)

    def test_viewers_are_told_how_many_dimensions(self, open_project):
        project = open_project()
        for name, dimension in (("points", 2), ("points_volume", 3)):
            config = CONFIGS[name]()
            config.init(name, "", {}, None, project=project)
            info = config.infer().info()
            assert (info["type"], info["dimension"], info["labels"]) == ("deepgrow", dimension, {})
            assert config.trainer() is None
            assert not {"label", "foreground", "background", "slice", "roi"} & set(info["config"])

    def test_models_that_need_no_click_come_first(self):
        kinds = [name.startswith("points") for name in CONFIGS if name != "backbone"]
        assert kinds == sorted(kinds)
        assert next(iter(CONFIGS)) == "fewshot"

    def test_results_are_small_unless_told_otherwise(self, asked, open_project, studies):
        task = Points(open_project(), whole=True, description="test")
        request = {
            "image": str(studies / "a.nii.gz"),
            "foreground": [INSIDE],
            "result_extension": ".nrrd",
            "device": "cpu",
        }
        sizes = [
            len(open(task({**request, **more})[0], "rb").read()) for more in ({}, {"result_compress": False})
        ]
        assert sizes[0] < sizes[1] / 5

    @pytest.mark.parametrize(
        ("request_", "sentence"),
        [
            ({}, "no foreground point"),
            ({"foreground": [INSIDE], "image": ""}, "no image"),
            ({"foreground": [[0, 0, 999]]}, "outside"),
        ],
    )
    def test_what_cannot_be_done_is_told(self, asked, open_project, studies, request_, sentence):
        task = Points(open_project(), whole=False, description="test")
        with pytest.raises(HTTPException, match=sentence) as refusal:
            task({"image": str(studies / "a.nii.gz"), "device": "cpu", **request_})
        assert 400 <= refusal.value.status_code < 500
        assert not asked

    def test_the_image_is_read_once(self, asked, open_project, studies, monkeypatch):
        project = open_project()
        task, reads = Points(project, whole=False, description="test"), []
        monkeypatch.setattr("lib.images.read_image", lambda path, _: reads.append(path) or read_volume(path))
        for _ in range(3):
            task({"image": str(studies / "a.nii.gz"), "foreground": [INSIDE], "device": "cpu"})
        assert len(reads) == 1

    def test_who_wants_to_know_is_told_of_clicks(self, asked, open_project, studies):
        told = []
        task = Points(
            open_project(), whole=False, description="test", clicked=lambda *news: told.append(news)
        )
        task({"image": str(studies / "a.nii.gz"), "foreground": [INSIDE], "device": "cpu"})
        assert told == [(studies / "a.nii.gz", [INSIDE[2]])]


class TestWarming:
    @pytest.fixture
    def computed(self, monkeypatch):
        """Slices that were computed in advance, in order; no weights are at hand."""
        done = []
        monkeypatch.setattr("fewshot.refine.sam.at_hand.sam_at_hand", lambda name: False)
        monkeypatch.setattr(
            engine_clicks, "warm_clicks", lambda volume, slices, **_: done.append((volume.name, *slices)) or 1
        )
        return done

    def test_the_middle_of_an_opened_image_comes_first(self, open_project, studies, computed):
        ClickWarmer(open_project()).open(studies / "a.nii.gz")
        wait_for(lambda: len(computed) == SHAPE[2])
        assert computed[0] == ("a", SHAPE[2] // 2)
        assert {index for _, index in computed} == set(range(SHAPE[2]))

    def test_the_neighbours_of_a_click_come_first(self, open_project, studies, computed):
        ClickWarmer(open_project()).near(studies / "b.nii.gz", [2])
        wait_for(lambda: len(computed) > 3)
        assert computed[0] == ("b", 2)
        assert {index for _, index in computed[1:3]} == {1, 3}

    def test_a_slow_machine_stops_after_a_few(self, open_project, studies, computed, monkeypatch):
        monkeypatch.setattr("lib.click_warming.SECONDS", -1)
        warmer = ClickWarmer(open_project())
        warmer.open(studies / "a.nii.gz")
        wait_for(lambda: computed)
        warmer.open(studies / "b.nii.gz")
        wait_for(lambda: len(computed) == 2)
        time.sleep(0.2)
        assert [name for name, _ in computed] == ["a", "b"]

    def test_what_was_opened_later_takes_the_place(self, open_project, studies, monkeypatch, computed):
        go_on, order = threading.Event(), []

        def slow(volume, slices, **_):
            order.append(volume.name)
            assert go_on.wait(20)
            return 1

        monkeypatch.setattr(engine_clicks, "warm_clicks", slow)
        warmer = ClickWarmer(open_project())
        warmer.open(studies / "a.nii.gz")
        wait_for(lambda: order)
        warmer.open(studies / "b.nii.gz")
        go_on.set()
        wait_for(lambda: len(order) > 2)
        assert order[:3] == ["a", "b", "b"]

    def test_an_image_that_cannot_be_read_is_told_and_the_next_one_works(
        self, open_project, studies, computed, caplog
    ):
        (studies / "broken.nii.gz").write_bytes(b"no image")
        warmer = ClickWarmer(open_project())
        warmer.open(studies / "broken.nii.gz")
        wait_for(lambda: "cannot be read" in caplog.text)
        warmer.open(studies / "a.nii.gz")
        wait_for(lambda: computed)

    def test_requests_go_first(self, open_project, studies, computed):
        project = open_project()
        volume = project.images.read(studies / "a.nii.gz")
        with project.engine.turns.take([volume]):
            ClickWarmer(project).open(studies / "a.nii.gz")
            time.sleep(0.3)
            assert not computed
        wait_for(lambda: computed)


def test_outwards():
    assert list(outwards([2], 5)) == [2, 1, 3, 0, 4]
    assert list(outwards([0, 4], 5)) == [0, 4, 1, 3, 2]
