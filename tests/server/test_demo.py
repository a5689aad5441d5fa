"""The demo's own parts; the demo as a whole runs as `make demo`."""

from __future__ import annotations

import json
import socket
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import requests
from rich.console import Console

from fewshot.demo import run_demo
from fewshot.demo.client import Client
from fewshot.demo.folder import DemoFolder
from fewshot.demo.results import Row, dice_table, mean_dice, mean_seconds, results, write_results
from fewshot.demo.server import Server, free_port
from fewshot.demo.templates import as_known, as_submitted, partial_template, with_dots
from fewshot.errors import FewshotError
from fewshot.evaluation.metrics import label_scores
from fewshot.phantoms import LANDMARKS, ORGANS, make_phantom, make_study
from fewshot.support import Template

SMALL = (48, 40, 20)


class TestPartialTemplate:
    @pytest.mark.parametrize("slices", [2, 3, 5])
    @pytest.mark.parametrize("seed", range(6))
    def test_a_few_slices_hold_every_label_and_nothing_else_is_kept(self, seed: int, slices: int):
        _, labels = make_study(seed, shape=SMALL)
        kept, chosen = partial_template(labels, ORGANS, slices=slices)
        assert len(chosen) == slices
        np.testing.assert_array_equal(kept[..., chosen], labels[..., chosen])
        assert not np.delete(kept, chosen, axis=2).any()
        assert set(np.unique(kept)) == {0, *ORGANS.values()}

    def test_slices_are_not_neighbours(self):
        _, labels = make_study(1, shape=(48, 40, 40))
        _, chosen = partial_template(labels, ORGANS, slices=5)
        assert np.diff(chosen).min() > 1

    def test_slices_may_lie_along_any_axis(self):
        _, labels = make_study(1, shape=SMALL, orientation="RAS")
        kept, chosen = partial_template(labels, ORGANS)
        turned, same = partial_template(np.moveaxis(labels, 2, 0), ORGANS, axis=0)
        assert chosen == same
        np.testing.assert_array_equal(np.moveaxis(turned, 0, 2), kept)

    def test_a_study_without_a_label_is_no_template(self):
        _, labels = make_study(1, shape=SMALL)
        labels[labels == ORGANS["spleen"]] = 0
        with pytest.raises(FewshotError, match="spleen"):
            partial_template(labels, ORGANS)


def test_labels_survive_the_journey_by_name():
    labels = np.array([[[0, 7, 300]]], dtype=np.uint16)
    ours = {"spleen": 300, "liver": 7}
    sent, names = as_submitted(labels, ours)
    assert sent.tolist() == [[[0, 2, 1]]]
    assert names == ["spleen", "liver"]
    theirs = {"liver": 5, "spleen": 1, "heart": 2}
    assert as_known(np.array([[[2, 5, 1]]]), theirs, ours).tolist() == [[[0, 7, 300]]]


@pytest.mark.parametrize("seed", range(3))
def test_the_server_takes_dots_out_of_what_adapters_learn_from(seed: int):
    naming = pytest.importorskip("lib.landmarks.naming", reason="MONAI Label is not installed")
    from lib.landmarks.separating import without_landmarks

    volume, labels, points = make_phantom(seed)
    partial, drawn = partial_template(labels, ORGANS)
    sent, names = as_submitted(partial, ORGANS)
    dotted, segments = with_dots(sent, names, points, volume.affine)
    assert [name for name in segments if naming.SUFFIX.search(name)] == segments[len(ORGANS) :]
    assert len(segments) == len(ORGANS) + len(LANDMARKS)
    submitted = Template(
        volume, dotted, {name: n for n, name in enumerate(segments, start=1)}, complete=False
    )
    learned = without_landmarks(submitted, lambda name: bool(naming.SUFFIX.search(name)), "auto")
    assert list(learned.names) == list(ORGANS)
    assert np.flatnonzero(learned.labels.any(axis=(0, 1))).tolist() == drawn, "no slice more or less"
    assert (learned.labels != sent).sum() < 0.3 * (dotted != sent)[..., drawn].sum() + 1


def some_rows() -> list[Row]:
    truth = np.zeros((4, 4, 4), dtype=np.uint8)
    truth[:2], truth[2:] = 1, 2
    half = truth.copy()
    half[0] = 0
    rows = []
    for case, adapter, found, seconds in (
        ("a", "basic", half, 1.0),
        ("b", "basic", truth, 3.0),
        ("a", "contrastive", truth, 0.5),
    ):
        scores = label_scores(truth, found, {"one": 1, "two": 2}, affine=np.eye(4))
        rows += [Row(case, adapter, label, each, seconds, 9.0) for label, each in scores.items()]
    return rows


def test_means_are_over_studies_and_seconds_are_counted_once_per_study():
    rows = some_rows()
    assert mean_dice(rows, adapter="basic", label="one") == pytest.approx((2 / 3 + 1) / 2)
    assert mean_dice(rows, adapter="contrastive") == 1
    assert mean_dice(rows, adapter="unknown") is None
    assert mean_seconds(rows, adapter="basic") == 2


def test_the_table_shows_every_label_and_adapter():
    console = Console(width=100, record=True, file=StringIO())
    console.print(dice_table(some_rows()))
    lines = console.export_text().splitlines()
    assert [line.split()[1::2] for line in lines if "one" in line or "mean" in line] == [
        ["one", "0.83", "1.00"],
        ["mean", "0.92", "1.00"],
    ]
    assert "basic" in lines[1]
    assert "contrastive" in lines[1]


def test_results_are_json_with_one_row_per_label(tmp_path):
    write_results(
        tmp_path / "r.json", results(some_rows(), dataset="d", templates=["t"], backbone="embedded")
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["shots"] == 1
    assert len(found["rows"]) == 6
    assert found["rows"][0]["dice"] == pytest.approx(2 / 3)
    assert found["summary"]["contrastive"]["mean"] == {"dice": 1.0, "seconds": 0.5}


class TestFolder:
    @staticmethod
    def prepare(folder: Path) -> None:
        place = DemoFolder(folder)
        with place.held():
            place.empty()

    def test_a_folder_with_other_content_is_left_alone(self, tmp_path):
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies" / "patient.nii.gz").touch()
        with pytest.raises(FewshotError, match="another"):
            self.prepare(tmp_path)
        assert (tmp_path / "studies" / "patient.nii.gz").exists()

    def test_an_earlier_demo_is_replaced(self, tmp_path):
        self.prepare(tmp_path)
        (tmp_path / "studies").mkdir()
        (tmp_path / "results.json").touch()
        (tmp_path / "my notes.txt").touch()
        self.prepare(tmp_path)
        assert not (tmp_path / "studies").exists()
        assert not (tmp_path / "results.json").exists()
        assert (tmp_path / "my notes.txt").exists()

    def test_two_demos_do_not_share_a_folder(self, tmp_path):
        with DemoFolder(tmp_path).held():
            (tmp_path / "pacs").mkdir()
            with pytest.raises(FewshotError, match="Another demo runs in"):
                self.prepare(tmp_path)
            assert (tmp_path / "pacs").exists()
        self.prepare(tmp_path)
        assert not (tmp_path / "pacs").exists()


class TestFailures:
    def test_a_silent_address_is_told_as_a_sentence(self):
        with pytest.raises(FewshotError, match="did not answer GET /info/"):
            Client(f"http://127.0.0.1:{free_port()}").info()

    def test_a_server_that_ends_at_once_is_told_with_its_last_words(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/ls")
        log = tmp_path / "log" / "server.log"
        with Server(tmp_path, log, conf={}, environment={}) as server:
            with pytest.raises(FewshotError, match="ended during start-up") as told:
                server.wait_until_ready(seconds=10)
            assert log.read_text().strip() in str(told.value)
        assert log.read_text()

    def test_a_taken_port_is_refused(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(FewshotError, match="give another one"):
                free_port(taken.getsockname()[1])

    def test_what_the_server_says_about_an_error_is_told(self):
        answer = requests.Response()
        answer.status_code, answer._content = 409, b'{"detail": "Press Train first."}'
        client = Client("http://127.0.0.1:1")
        client._session.request = lambda *request, **more: answer
        with pytest.raises(FewshotError, match=r"refused POST /infer/m \(409\): Press Train first\."):
            client.infer("m", "image", Path("never.nrrd"))

    def test_ids_of_images_are_quoted_in_addresses(self, tmp_path):
        answer, asked = requests.Response(), []
        answer.status_code, answer._content = 200, b'{"series": "1.2"}'
        client = Client("http://a:1")
        client._session.request = lambda *request, **more: asked.append(request) or answer
        assert client.store_landmarks("a b") == "1.2"
        assert client.landmarks("a b", tmp_path / "new" / "x.json").read_bytes() == answer.content
        assert asked == [("POST", "http://a:1/landmarks/a%20b/sr"), ("GET", "http://a:1/landmarks/a%20b")]

    def test_a_failed_training_is_told_with_its_log(self, monkeypatch):
        client = Client("http://127.0.0.1:1")
        task = {"status": "ERROR", "details": ["Traceback", "FewshotError: The template is empty.\n"]}
        monkeypatch.setattr(client, "_json", lambda method, path, **more: task if path == "/train/" else {})
        with pytest.raises(FewshotError, match="ended with ERROR(.|\n)*The template is empty"):
            client.train("m", watch=lambda training: None)

    def test_a_failing_demo_gives_exit_code_1_and_one_sentence(self, tmp_path, capsys):
        (tmp_path / "patient.nii.gz").touch()
        assert run_demo(tmp_path) == 1
        assert "give another, empty folder" in capsys.readouterr().err
