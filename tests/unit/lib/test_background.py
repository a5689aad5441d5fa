"""Warming, batch inference and the choice of the next image."""

import json
import threading
import time
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from safetensors import safe_open

from fewshot import pipeline
from fewshot.errors import FewshotError
from fewshot.features import load_backbone
from lib.activelearning import Random
from lib.batch import BatchInference
from lib.files import read_json, write_json
from lib.infers import Segmentation
from lib.models import FittedModels
from lib.warming import Warmer
from tests.unit.conftest import blobs
from tests.unit.lib.conftest import write_study

LABELS = blobs(0)[1]


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_what_is_warmed_is_what_an_inference_wants(open_project, submit, studies, tmp_path):
    project = open_project()
    submit(project, "a", LABELS, ["bright", "dark"])
    warmer = Warmer(project)
    for image in ("a", "b"):
        warmer.warm(image)
    wait_for(lambda: len(list((tmp_path / "bank").glob("*.safetensors"))) == 2)
    _, result = Segmentation(FittedModels("basic", project), project, description="test")(
        {"image": str(studies / "b.nii.gz"), "device": "cpu"}
    )
    assert result["provenance"]["features_from_bank"]


def test_an_image_that_cannot_be_warmed_is_told_and_the_next_one_is_warmed(
    open_project, studies, tmp_path, caplog
):
    project = open_project()
    (studies / "a.nii.gz").write_bytes(b"broken")
    warmer = Warmer(project)
    for image in ("a", "b"):
        warmer.warm(image)
    wait_for(lambda: list((tmp_path / "bank").glob("*.safetensors")))
    assert "The features of a were not computed in advance" in caplog.text
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("same", [False, True])
def test_warming_gives_way_unless_its_features_are_waited_for(open_project, monkeypatch, same):
    project = open_project()
    engine, (mine, _), (other, _) = project.engine, blobs(0), blobs(1)
    warmed, started, release = threading.Event(), threading.Event(), threading.Event()

    def slow_predict(*_, **__):
        started.set()
        assert release.wait(20)

    monkeypatch.setattr(pipeline, "predict", slow_predict)
    inference = threading.Thread(
        target=engine.predict,
        args=(mine if same else other, SimpleNamespace(backbone="random-tiny")),
        kwargs={"components": "all"},
    )
    inference.start()
    assert started.wait(20)
    spec = engine.slicing([mine])
    warming = threading.Thread(target=lambda: (engine.warm(mine, spec, device="cpu"), warmed.set()))
    warming.start()
    assert warmed.wait(20 if same else 1.0) is same
    release.set()
    inference.join()
    warming.join(20)
    assert warmed.is_set()


class TestNewBackbone:
    """What a training in another process has published is noticed, and features follow."""

    @pytest.fixture
    def publish(self, project):
        """Publishes backbones as a training does."""
        pytest.importorskip("lightly", reason="fewshot[pretrain] is not installed")
        from tests.backbones import write_tiny_backbone

        def new(name):
            file = project.workspace.backbones / f"{name}.safetensors"
            write_tiny_backbone(file, seed=7)
            project.workspace.publish_backbone(file)
            return load_backbone(str(file), device="cpu").digest

        return new

    @pytest.fixture
    def project(self, open_project, submit, monkeypatch):
        monkeypatch.setattr("lib.warming.LOOK_SECONDS", 0.05)
        project = open_project(size="64")
        submit(project, "a", LABELS, ["bright", "dark"])
        return project

    @staticmethod
    def digests(bank):
        """Backbones whose features are in the bank, one entry per volume."""
        found = []
        for path in bank.glob("*.safetensors"):
            with safe_open(path, "np") as entry:
                found.append(json.loads(entry.metadata()["signature"])["backbone"])
        return sorted(found)

    @staticmethod
    def told(project):
        return (
            read_json(project.workspace.bank) if project.workspace.bank.exists() else {"done": 0, "total": -1}
        )

    def wait(self, project, backbone):
        wait_for(
            lambda: (told := self.told(project))["done"] == told["total"] and backbone in told["backbone"]
        )

    def test_features_of_all_studies_follow(self, project, publish, studies, tmp_path):
        write_study(studies, "c", 2)
        (studies / "broken.nii.gz").write_bytes(b"no image")
        project.datastore._reconcile_datastore()
        warmer = Warmer(project)
        for image in ("a", "b"):
            warmer.warm(image)
        wait_for(lambda: len(self.digests(tmp_path / "bank")) == 2)
        warmer.follow()
        time.sleep(0.3)
        assert not project.workspace.bank.exists(), "nothing was published yet"
        digest = publish("0001")
        self.wait(project, "0001")
        assert self.digests(tmp_path / "bank") == [digest] * 3
        told = self.told(project)
        assert (told["done"], told["total"], list(told["failed"])) == (4, 4, ["broken"])
        assert "cannot be read" in told["failed"]["broken"]

    def test_what_a_stopped_server_had_begun_is_finished(self, project, publish, tmp_path):
        publish("0001")
        now = project.workspace.backbone_now()
        write_json(project.workspace.bank, {"backbone": now, "before": "random-tiny", "done": 1, "total": 2})
        Warmer(project).follow()
        wait_for(lambda: len(self.digests(tmp_path / "bank")) == 2)

    def test_what_was_finished_is_not_begun_again(self, project, publish, tmp_path):
        publish("0001")
        now = project.workspace.backbone_now()
        write_json(project.workspace.bank, {"backbone": now, "before": "random-tiny", "done": 2, "total": 2})
        Warmer(project).follow()
        time.sleep(0.5)
        assert self.digests(tmp_path / "bank") == []

    def test_a_submit_goes_first(self, project, publish, monkeypatch):
        order, engine = [], project.engine
        monkeypatch.setattr(engine, "warm", lambda volume, spec: (order.append(volume.name), time.sleep(0.2)))
        publish("0001")
        warmer = Warmer(project)
        warmer.follow()
        wait_for(lambda: order)
        warmer.warm("submitted")
        monkeypatch.setattr(warmer, "_features", order.append)
        wait_for(lambda: len(order) == 3)
        assert order == ["a", "submitted", "b"]

    def test_a_full_bank_takes_only_what_takes_the_place_of_something(
        self, project, publish, tmp_path, monkeypatch
    ):
        warmer = Warmer(project)
        warmer.warm("b")
        wait_for(lambda: len(self.digests(tmp_path / "bank")) == 1)
        monkeypatch.setattr("lib.engine.ROOM", 0)
        digest = publish("0001")
        warmer.follow()
        self.wait(project, "0001")
        assert self.digests(tmp_path / "bank") == [digest]


class Store:
    """A datastore that counts seconds since an image was offered."""

    def __init__(self, **offered: float):
        now = int(time.time())
        self.infos = {image: {"strategy": {"random": {"ts": now - ago}}} for image, ago in offered.items()}

    def get_unlabeled_images(self):
        return list(self.infos)

    def get_image_info(self, image):
        return self.infos[image]

    def list_images(self):
        return list(self.infos)


def test_the_only_image_can_be_asked_for_twice_within_a_second():
    assert Random()({}, Store(a=0)) == {"id": "a"}
    assert Random()({}, Store(a=-5)) == {"id": "a"}


def test_nothing_is_chosen_where_all_is_labelled():
    assert Random()({}, Store()) is None


def test_images_offered_lately_come_later():
    chosen = [Random()({}, Store(a=0, b=1000))["id"] for _ in range(100)]
    assert chosen.count("b") > 80


@pytest.mark.parametrize("error", [FewshotError("It is broken."), HTTPException(422, "It is broken.")])
def test_a_batch_goes_on_after_an_image_that_fails(error):
    def infer(request, store):
        if request["image"] == "b":
            raise error
        return {"label": request["image"]}

    request = {"model": "fewshot", "images": "all", "max_workers": 1}
    result = BatchInference()(request, Store(a=1, b=1, c=1), infer)
    assert result == {"a": {"label": "a"}, "b": {"error": "It is broken."}, "c": {"label": "c"}}


def test_a_batch_without_a_gpu_runs_on_what_there_is(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    devices = []
    BatchInference()(
        {"images": "all", "multi_gpu": True, "max_workers": 1},
        Store(a=1),
        lambda request, store: devices.append(request["device"]) or SimpleNamespace(get=lambda key: None),
    )
    assert devices == ["cpu"]
