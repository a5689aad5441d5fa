"""What annotators are offered of a PACS: the next image, a model's draft, and no image that cannot be had just now."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.tasks.activelearning.first import First

from lib.files import read_json
from lib.pacs.errors import PacsError
from lib.pacs.model import seg_info
from lib.warming import Warmer
from tests.pacs.making import another, block, make_seg, write_image
from tests.unit.pacs.conftest import submit, wait_for

MAIN = Path(__file__).resolve().parents[3] / "apps" / "fewshot" / "main.py"


@pytest.fixture(scope="module")
def app_class():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("fewshot_app_main", MAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module.FewshotApp


@pytest.fixture
def open_app(app_class, open_pacs):
    """The app without a server around it; its datastore calls it as the real one does."""

    def open_with():
        app = object.__new__(app_class)
        app.warmer = SimpleNamespace(warmed=[], warm=lambda image: app.warmer.warmed.append(image))
        app.project, app._datastore = open_pacs(ask=False, on_change=app._on_pacs_change)
        app._strategies, app._infers, app._auto_update_scoring = {"first": First()}, {}, False
        app._datastore.refresh()
        return app

    return open_with


@pytest.fixture
def three(fake, tmp_path) -> list[str]:
    """Three CTs in the PACS, in the order in which they are offered."""
    uids = [write_image(tmp_path / str(seed), seed) for seed in range(3)]
    fake.store(*(tmp_path / str(seed) for seed in range(3)))
    return sorted(uids)


FIRST = {"strategy": "first"}


def test_names_are_learned_and_features_follow_only_after_the_start(fake, open_app, folder, uid, seg):
    fake.store(folder, seg)
    app = open_app()
    wait_for(lambda: app.project.labels.read() == {"liver": 1, "spleen": 2})
    newer = another(seg, ContentDate="20270101")
    newer.SegmentSequence[0].SegmentLabel = "kidney"
    fake.store(newer)
    app._datastore.refresh()
    wait_for(lambda: app.project.labels.read() == {"liver": 1, "spleen": 2, "kidney": 3})
    wait_for(lambda: app.warmer.warmed == [uid])


def test_an_image_that_the_pacs_cannot_hand_over_gives_way_for_a_while(fake, open_app, three, monkeypatch):
    app = open_app()
    fake.broken.add(three[0])
    assert app.next_sample(FIRST)["id"] == three[1]
    fake.queries()
    assert app.next_sample(FIRST)["id"] == three[1]
    assert fake.queries() == [], "it is not asked for again at once"
    fake.broken.clear()
    monkeypatch.setattr("lib.pacs.lately.SECONDS", 0.0)
    assert app.next_sample(FIRST)["id"] == three[0]


def test_an_image_that_can_be_had_again_is_offered_at_once(fake, open_pacs, three):
    _, pacs = open_pacs()
    fake.broken.add(three[0])
    with pytest.raises(PacsError):
        pacs.get_image_uri(three[0])
    assert sorted(pacs.get_unlabeled_images()) == three[1:]
    fake.broken.clear()
    pacs.get_image_uri(three[0])
    assert sorted(pacs.get_unlabeled_images()) == three


def test_where_no_image_can_be_had_the_reason_is_told_each_time(fake, open_app, three):
    app = open_app()
    fake.broken.update(three)
    for _ in range(2):
        with pytest.raises(PacsError, match=r"failed over the series .*500"):
            app.next_sample(FIRST)


def test_a_request_tries_only_a_few_images(fake, open_app, three, monkeypatch, app_class):
    monkeypatch.setitem(app_class._readable_sample.__globals__, "FAILURES", 1)
    app = open_app()
    fake.broken.update(three[:2])
    with pytest.raises(PacsError, match=three[1]):
        app.next_sample(FIRST)
    assert app.next_sample(FIRST)["id"] == three[2]


def test_a_pacs_that_is_gone_is_told_at_once(fake, open_app, three):
    app = open_app()
    fake.stop()
    with pytest.raises(PacsError, match="cannot be reached"):
        app.next_sample(FIRST)
    fake.start()
    assert app.next_sample(FIRST)["id"] == three[0], "it was no fault of the image"


def test_a_draft_has_its_own_names_in_slicer(fake, open_pacs, folder, uid):
    fake.store(folder, make_seg(folder, folder.parent / "m.dcm", {1: "spleen", 2: "aorta"}, model="fewshot"))
    project, pacs = open_pacs()
    project.labels.add(["liver"])
    info = pacs.get_label_info(uid, "original")
    assert info["params"]["label_names"] == {"spleen": 1, "aorta": 2}


def test_every_value_of_a_draft_has_a_name_of_its_own(fake, open_pacs, folder, uid, seg):
    fake.store(folder, seg)
    _, pacs = open_pacs()
    contents = pacs._watch.contents
    one, other = contents.persons[uid].header.segments
    header = replace(
        contents.persons[uid].header, segments=(one, one, replace(one, name="background"), other)
    )
    info = seg_info(replace(contents.persons[uid], header=header), contents.images[uid])
    assert info["params"]["label_names"] == {
        "liver": 1,
        "liver (2)": 2,
        "background (3)": 3,
        "spleen": 4,
    }


def test_what_is_shown_is_made_only_after_a_change(fake, open_pacs, folder, uid, seg):
    fake.store(folder)
    _, pacs = open_pacs()
    shown = pacs._datastore
    pacs.refresh()
    assert pacs._datastore is shown
    pacs.update_image_info(uid, {"seen": True})
    assert pacs._datastore is not shown
    assert pacs.get_image_info(uid)["seen"]
    fake.store(seg)
    pacs.refresh()
    assert pacs.status()["completed"] == 1
    label = Path(pacs.get_label_uri(uid, "final"))
    for file in fake.files.values():
        for dataset in file.values():
            dataset.PatientID = "renamed"
    pacs.refresh()
    assert pacs.get_image_info(uid)["PatientID"] == "renamed"
    assert label.exists(), "the image and its label are the same"
    submit(pacs, uid, block(1), ["liver"], tag="original")
    assert "original" in pacs.get_labels_by_image_id(uid)


def test_a_new_backbone_fetches_nothing_from_the_pacs(fake, open_pacs, three, monkeypatch):
    monkeypatch.setattr("lib.warming.LOOK_SECONDS", 0.05)
    project, pacs = open_pacs()
    pacs.get_image_uri(three[1])
    warmed: list[str] = []
    monkeypatch.setattr(project.engine, "warm", lambda volume, spec: warmed.append(volume.path.name))
    monkeypatch.setattr(type(project.workspace), "backbone_before", lambda _: "handmade")
    fake.queries()
    Warmer(project).follow()
    wait_for(project.workspace.bank.exists)
    wait_for(lambda: read_json(project.workspace.bank)["done"] == 1)
    assert read_json(project.workspace.bank)["total"] == 1
    assert fake.queries() == []
    assert warmed == [f"{three[1]}.nii.gz"]
