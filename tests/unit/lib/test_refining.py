"""Refinement: the options of viewers, weights that are loaded once, and what the answer says of it."""

import json

import numpy as np
import pytest
from fastapi import HTTPException

from fewshot import refine
from fewshot.errors import FewshotError
from fewshot.refine import sam as sam_package
from fewshot.refine.prompts import PROMPTS as STRATEGIES
from lib.configs.settings import PROMPTS, REFINERS
from lib.infers import Segmentation
from lib.models import FittedModels
from lib.refining import UNREFINED, Refinement, Refining
from tests.unit.conftest import blobs

LABELS = blobs(0)[1]


@pytest.fixture
def loads(monkeypatch):
    """Names of Segment Anything models in the order of loading."""
    done, load = [], sam_package.load_sam
    monkeypatch.setattr(sam_package, "load_sam", lambda name, **how: done.append(name) or load(name, **how))
    return done


@pytest.fixture
def nothing_at_hand(monkeypatch):
    monkeypatch.setattr("fewshot.refine.sam.at_hand.sam_at_hand", lambda name: False)


@pytest.fixture
def bank(open_project):
    return open_project().engine.bank


@pytest.fixture
def segment(open_project, submit, studies):
    """Segments study b with the basic adapter on a server started with --conf."""

    def run(request, **conf):
        project = open_project(**conf)
        submit(project, "a", LABELS, ["bright", "dark"])
        task = Segmentation(FittedModels("basic", project), project, description="test")
        image = str(studies / "b.nii.gz")
        return task({"image": image, "device": "cpu", "result_write_to_file": False, **request})

    return run


def test_names_are_the_engines():
    assert sorted(refine.REFINERS) == sorted(REFINERS)
    assert tuple(STRATEGIES) == PROMPTS


def test_the_default_is_what_the_server_was_started_with(open_project):
    for conf, first in (({}, "auto"), ({"refine": "walker"}, "walker")):
        project = open_project(**conf)
        config = Segmentation(FittedModels("basic", project), project, description="test").config()
        assert config["refine"][0] == first
        assert sorted(config["refine"]) == sorted(REFINERS)
        assert config["prompts"][0] == "random"


class TestAnswers:
    """What a viewer gets; Slicer sends all options as texts, OHIF those that were changed."""

    @pytest.mark.parametrize(
        ("request_", "conf"),
        [
            ({"refine": "none"}, {}),
            ({"refine": ["none", "sam"]}, {}),
            ({}, {"refine": "none"}),
            ({"refine": ""}, {"refine": "none"}),
        ],
    )
    def test_unrefined(self, segment, request_, conf):
        _, result = segment(request_, **conf)
        assert "refine" not in result["provenance"]

    @pytest.mark.parametrize("how", ["request", "configuration"])
    def test_without_weights(self, segment, how):
        labels, result = segment({"refine": "walker"}) if how == "request" else segment({}, refine="walker")
        said = result["provenance"]["refine"]
        assert said["refiner"] == "walker"
        assert result["timings"]["refine"] > 0
        assert labels.shape == LABELS.shape
        json.dumps(result)

    @pytest.mark.parametrize("request_", [{}, {"refine": "auto"}, {"refine": ""}])
    def test_auto_says_why(self, segment, nothing_at_hand, request_):
        _, result = segment(request_)
        assert result["provenance"]["refine"]["refiner"] == "walker"
        assert "no SAM weights for this machine are at hand" in result["provenance"]["refine"]["why"]

    def test_segment_anything(self, segment):
        labels, result = segment({"refine": "sam", "prompts": "box"}, sam="random-tiny")
        said = result["provenance"]["refine"]
        assert (said["refiner"], said["sam"], said["prompts"]) == ("sam", "random-tiny", "box")
        assert any("random" in note for note in result["notes"])
        assert set(np.unique(labels)) <= {0, 1, 2}
        json.dumps(result)

    @pytest.mark.parametrize(
        ("request_", "conf", "sentence"),
        [
            ({"refine": "snake"}, {}, "no refinement snake; choose none, auto, walker"),
            (
                {"refine": "sam", "prompts": "shouting"},
                {"sam": "random-tiny"},
                "no prompt strategy 'shouting'",
            ),
            ({"refine": "sam"}, {}, "give --conf sam NAME"),
            ({"refine": "sam2"}, {"sam": "random-tiny"}, "give another --conf sam, or refine with sam"),
        ],
    )
    def test_what_cannot_be_done_is_told(self, segment, nothing_at_hand, request_, conf, sentence):
        with pytest.raises(HTTPException, match=sentence) as refusal:
            segment(request_, **conf)
        assert refusal.value.status_code == 422
        assert "\n" not in refusal.value.detail


class TestWeights:
    def test_nothing_is_loaded_unasked(self, bank, loads):
        refining = Refining("random-tiny")
        assert refining.refiner(UNREFINED, bank=bank) is None
        assert refining.refiner(Refinement("walker"), bank=bank, device="cpu")
        assert loads == []

    def test_they_are_loaded_once_and_shared(self, bank, loads):
        refining = Refining("random-tiny")
        first = refining.refiner(Refinement("sam"), bank=bank, device="cpu")
        other = refining.refiner(Refinement("sam", "centroid"), bank=bank, device="cpu")
        assert first.sam is other.sam is refining.sam_for_clicks("cpu")
        assert (first.options.prompts, other.options.prompts) == ("random", "centroid")
        assert loads == ["random-tiny"]

    def test_a_replaced_file_is_loaded_again(self, bank, tmp_path, monkeypatch):
        file, loaded = tmp_path / "weights.pth", []
        monkeypatch.setattr(sam_package, "load_sam", lambda name, **_: loaded.append(name) or object())
        refining = Refining(str(file))
        for content in (b"one", b"one", b"another"):
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)
            refining.sam(str(file), "cpu")
        assert loaded == [str(file)] * 2

    def test_clicks_do_without_where_nothing_is_at_hand(self, nothing_at_hand):
        assert Refining().sam_for_clicks("cpu") is None

    def test_what_cannot_be_loaded_is_told(self, tmp_path):
        with pytest.raises(FewshotError, match="nowhere"):
            Refining(str(tmp_path / "nowhere.pth")).sam_for_clicks("cpu")
