"""Several annotators at one server: turns, cancelling, and answers to others meanwhile."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests

from fewshot.phantoms import make_study
from lib.background import NICENESS
from lib.files import read_json
from lib.trainers.base import ABANDONED
from tests.server.conftest import TRAINED, Server, sentence, wait_for

pytestmark = pytest.mark.server

MODEL = "fewshot_basic"
SUFFIX = ".large.nii"
"""Of uploaded files, by which they are found where the server puts them."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes images that take long, each another one: nothing is in the bank."""
    volume, _ = make_study(7, shape=(64, 56, 40))
    enlarged = np.kron(volume.array.astype(np.int16), np.ones((4, 4, 4), np.int16))
    file, numbers = tmp_path_factory.mktemp("large") / f"image{SUFFIX}", itertools.count()

    def make() -> Path:
        enlarged[0, 0, 0] = next(numbers)
        nib.save(nib.Nifti1Image(enlarged, volume.affine @ np.diag([0.25, 0.25, 0.25, 1])), file)
        return file

    return make


@pytest.fixture(scope="module")
def large(annotated: Server, study: Callable[[], Path]) -> Iterator[Callable[[], str]]:
    """Makes sessions with such images."""
    sessions = []

    def make() -> str:
        sessions.append(annotated.client.create_session(str(study()))["session_id"])
        return sessions[-1]

    yield make
    for session in sessions:
        annotated.client.remove_session(session)


class Asking(threading.Thread):
    """One inference in the background, of an image of the studies or of a session."""

    def __init__(self, server: Server, ticket: str, *, image: str = "", session: str = "", **params: Any):
        super().__init__(daemon=True)
        self.answer: requests.Response | None = None
        self.done = 0.0
        self._ask = {
            "url": f"{server.url}/infer/{params.pop('model', MODEL)}",
            "params": {"image": image, "session_id": session, "output": "json"},
            "data": {"params": json.dumps({"ticket": ticket, **params})},
        }
        self.start()

    def run(self) -> None:
        self.answer = requests.post(**self._ask, timeout=300)
        self.done = time.monotonic()

    def result(self) -> requests.Response:
        self.join(300)
        assert self.answer is not None
        return self.answer


def queue(server: Server) -> dict[str, Any]:
    return requests.get(f"{server.url}/infer/queue", timeout=60).json()


def cancel(server: Server, ticket: str) -> requests.Response:
    return requests.delete(f"{server.url}/infer/queue/{ticket}", timeout=60)


def runs(server: Server, ticket: str) -> bool:
    return (queue(server)["running"] or {}).get("ticket") == ticket


def answering(server: Server, rounds: int = 3) -> list[float]:
    """Seconds that the server takes to answer what viewers ask all the time, an image among it."""
    took = []
    for path in ("info/", "logs/", "datastore/image?image=ct_1", "train/", "datastore/") * rounds:
        start = time.monotonic()
        answer = requests.get(f"{server.url}/{path}", timeout=60)
        took.append(time.monotonic() - start)
        assert answer.status_code == 200 or path == "train/"
    return took


def trainings(server: Server) -> list[dict[str, Any]]:
    answer = requests.get(f"{server.url}/train/", params={"all": True}, timeout=60)
    return answer.json() if answer.ok else []


def test_a_training_holds_nobody_up_and_stops_with_all_that_wait(annotated: Server):
    before = len(trainings(annotated))
    endless = {model: {"max_epochs": 1_000_000} for model in TRAINED}
    assert requests.post(f"{annotated.url}/train/", json=endless, timeout=300).ok
    wait_for(lambda: annotated.client.info()["train_stats"][TRAINED[0]].get("epoch", 0) > 3)
    server = psutil.Process(annotated.process.pid)
    (training,) = [
        child
        for child in server.children(recursive=True)
        if "monailabel.interfaces.utils.app" in child.cmdline()
    ]
    assert training.nice() == server.nice() + NICENESS
    took = answering(annotated)
    assert training.is_running(), "it was over before anything was measured"
    assert statistics.median(took) < 0.5

    assert requests.delete(f"{annotated.url}/train/", timeout=60).json()["status"] == "STOPPED"
    assert not training.is_running()
    stopped = trainings(annotated)[before:]
    assert [(task["request"]["model"], task["status"]) for task in stopped] == [
        (model, "STOPPED") for model in TRAINED
    ]
    assert all(task["end_ts"] for task in stopped)
    stats = read_json(annotated.workspace / "stats" / f"{TRAINED[0]}.json")
    assert (stats["error"], "total_time" in stats) == (ABANDONED, True)

    # while its process is only starting, and again at once: nothing is left that would refuse it
    assert requests.post(f"{annotated.url}/train/{TRAINED[0]}", json={}, timeout=300).ok
    assert requests.delete(f"{annotated.url}/train/", timeout=60).json()["status"] == "STOPPED"
    time.sleep(1)
    assert trainings(annotated)[-1]["status"] == "STOPPED"
    assert not [
        child
        for child in server.children(recursive=True)
        if "monailabel.interfaces.utils.app" in child.cmdline()
    ]


def test_two_clients_take_turns_and_others_are_answered(annotated: Server, large: Callable[[], str]):
    first = Asking(annotated, "first", session=large(), client_id="ann")
    wait_for(lambda: runs(annotated, "first"))
    asked = [first]
    for n, client in enumerate(["ann", "ann", "bob"]):
        asked.append(Asking(annotated, f"{client}-{n}", image=f"ct_{n}", client_id=client))
        wait_for(lambda n=n: len(queue(annotated)["waiting"]) == n + 1)
    seen = queue(annotated)
    assert [(entry["ticket"], entry["position"]) for entry in seen["waiting"]] == [
        ("bob-2", 1),
        ("ann-0", 2),
        ("ann-1", 3),
    ]
    assert {key: seen["waiting"][0][key] for key in ("client", "model", "image")} == {
        "client": "bob@127.0.0.1",
        "model": MODEL,
        "image": "ct_2",
    }
    assert seen["running"]["position"] == 0
    assert "in use" in sentence(annotated.infer(MODEL, "ct_1", ticket="ann-1"), 409)
    took = answering(annotated)
    assert runs(annotated, "first"), "it was over before anything was measured"
    assert statistics.median(took) < 0.5
    assert cancel(annotated, "first").ok
    assert [one.result().status_code for one in asked] == [409, 200, 200, 200]
    assert [one.done for one in (asked[3], asked[1], asked[2])] == sorted(one.done for one in asked[1:])
    assert queue(annotated) == {"running": None, "waiting": []}


def test_waiting_and_running_ones_are_cancelled(annotated: Server, large: Callable[[], str]):
    running = Asking(annotated, "running", session=large(), client_id="ann")
    wait_for(lambda: runs(annotated, "running"))
    waiting = Asking(annotated, "waiting", image="ct_1", client_id="bob")
    wait_for(lambda: queue(annotated)["waiting"])
    assert cancel(annotated, "waiting").json() == {"ticket": "waiting", "cancelled": True}
    assert "The inference of ct_1 with fewshot_basic was cancelled." in sentence(waiting.result(), 409)
    assert queue(annotated)["waiting"] == []
    assert runs(annotated, "running")
    start = time.monotonic()
    assert cancel(annotated, "running").status_code == 200
    assert "was cancelled" in sentence(running.result(), 409)
    assert time.monotonic() - start < 5
    assert annotated.infer(MODEL, "ct_1").status_code == 200
    assert "no inference with the ticket running" in sentence(cancel(annotated, "running"), 404)


@pytest.mark.parametrize("position", [0, 1])
def test_a_client_that_goes_away_cancels_its_inference(
    annotated: Server, large: Callable[[], str], study: Callable[[], Path], position: int
):
    if position:
        other = Asking(annotated, "other", session=large())
        wait_for(lambda: runs(annotated, "other"))
    ticket = f"gone-{position}"
    with requests.Session() as session, pytest.raises(requests.ReadTimeout):
        session.post(
            f"{annotated.url}/infer/{MODEL}",
            data={"params": json.dumps({"ticket": ticket, "client_id": "cy"})},
            files={"file": (f"image{SUFFIX}", study().read_bytes())},
            timeout=(60, 2.5),  # and then the connection is closed
        )
    told = f"cy@127.0.0.1 went away: the inference {ticket} of the uploaded image with {MODEL} is cancelled"
    wait_for(lambda: told in annotated.log.read_text(), 30)
    wait_for(lambda: ticket not in json.dumps(queue(annotated)), 30)
    wait_for(lambda: not list(Path(tempfile.gettempdir()).glob(f"*{SUFFIX}")), 30)
    if position:
        assert runs(annotated, "other")
        assert cancel(annotated, "other").ok
        assert other.result().status_code == 409


@pytest.mark.parametrize("params", ["[1]", '{"ticket": 7}', json.dumps({"ticket": "x" * 101})])
def test_what_is_no_ticket_is_told(annotated: Server, params: str):
    answer = requests.post(
        f"{annotated.url}/infer/{MODEL}", params={"image": "ct_1"}, data={"params": params}, timeout=60
    )
    assert "send" in sentence(answer, 422)
