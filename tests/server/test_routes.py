"""The replaced routes keep the checks of roles, and tell failures in sentences."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fewshot.errors import FewshotError
from lib.queueing import InferenceQueue

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def web():
    """MONAI Label's web application without an app behind it, its routes replaced."""
    from monailabel.app import app
    from monailabel.endpoints.user.auth import User, get_current_user

    from lib import routes

    routes.install()
    roles: list[str] = []
    app.dependency_overrides[get_current_user] = lambda: User(username="ann", roles=roles)
    try:
        yield SimpleNamespace(client=TestClient(app, raise_server_exceptions=False), roles=roles)
    finally:
        app.dependency_overrides.clear()


@pytest.fixture
def instance(web, monkeypatch):
    """A stand-in for the app; tests give it what they need."""
    stand_in = SimpleNamespace(
        info=dict,
        prepare_inference=lambda model, image: None,
        answers_clicks=lambda model: False,
        check_inference=lambda model: None,
        check_training=lambda model, params: None,
        project=SimpleNamespace(engine=SimpleNamespace(queue=InferenceQueue())),
    )
    for module in ("infer", "datastore", "info"):
        monkeypatch.setattr(f"monailabel.endpoints.{module}.app_instance", lambda: stand_in)
    for module in ("inference", "queue", "training"):
        monkeypatch.setattr(f"lib.routes.{module}.app_instance", lambda: stand_in)
    return stand_in


CALLS = {
    "infer/fewshot?image=a": ("post", "monailabel-user", {"data": {"params": "{}"}}),
    "datastore/label?image=a": (
        "put",
        "monailabel-annotator",
        {"data": {"params": "{}"}, "files": {"label": b"x"}},
    ),
    "train/fewshot": ("post", "monailabel-admin", {"json": {}}),
    "train/": ("post", "monailabel-admin", {"json": {}}),
    "batch/infer/fewshot": ("post", "monailabel-admin", {"json": {}}),
    "infer/queue": ("get", "monailabel-user", {}),
    "infer/queue/mine": ("delete", "monailabel-user", {}),
    "proxy/dicom/qido/studies?limit=1": ("get", "monailabel-user", {}),
    "proxy/dicom/stow/studies": ("post", "monailabel-annotator", {"content": b"x"}),
    "info/": ("get", "monailabel-user", {}),
    "logs/": ("get", "monailabel-admin", {}),
    "datastore/": ("get", "monailabel-user", {}),
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("allowed", [False, True])
def test_roles_are_checked_as_before(web, instance, monkeypatch, path, allowed):
    from monailabel.config import settings

    method, role, body = CALLS[path]
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    web.roles[:] = [role] if allowed else ["monailabel-reviewer"]

    def reached(*_, **__):
        raise HTTPException(418, "The app was asked.")

    for name in ("info", "infer", "datastore", "check_training", "check_inference", "trained_together"):
        setattr(instance, name, reached)
    monkeypatch.setattr("lib.routes.queue.queue", reached)
    monkeypatch.setattr("lib.routes.proxy.requests.request", reached)
    monkeypatch.setattr("monailabel.endpoints.logs.get_logs", reached)
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "http://pacs/dicom-web")
    answer = getattr(web.client, method)(f"/{path}", **body)
    assert answer.status_code == (418 if allowed else 403), answer.text
    if not allowed:
        assert role in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (FewshotError("It is broken: mend it."), 422, "It is broken: mend it."),
        (HTTPException(409, "Not yet: do this first."), 409, "Not yet: do this first."),
    ],
)
def test_failures_are_told(web, instance, error, status, detail):
    def fail(*_):
        raise error

    instance.infer = fail
    answer = web.client.post("/infer/fewshot?image=a", data={"params": "{}"})
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


def test_what_nobody_expected_stays_a_500(web, instance):
    def fail(*_):
        raise RuntimeError("secret path /home/x")

    instance.infer = fail
    answer = web.client.post("/infer/fewshot?image=a", data={"params": "{}"})
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_the_request_reaches_the_app_unchanged(web, instance):
    seen = []
    instance.infer = lambda request: seen.append(request) or {"params": {"ok": True}}
    instance.datastore = lambda: None
    params = {"result_extension": ".nrrd", "client_id": "c"}
    answer = web.client.post("/infer/fewshot?image=a&output=json", data={"params": json.dumps(params)})
    assert answer.json() == {"ok": True}
    assert len(seen[0].pop("ticket")) == 12
    assert seen == [{"model": "fewshot", "image": "a", **params}]


def test_only_ones_own_inference_is_cancelled_unless_by_an_administrator(web, instance, monkeypatch):
    from monailabel.config import settings

    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    web.roles[:] = ["monailabel-user"]
    queue = instance.project.engine.queue
    for owner in ("ann", "bob"):
        queue.enter("fewshot", "a", owner, ticket=f"{owner}'s", owner=owner)
    assert web.client.delete("/infer/queue/ann's").status_code == 200
    answer = web.client.delete("/infer/queue/bob's")
    assert (answer.status_code, "is bob's" in answer.json()["detail"]) == (403, True)
    web.roles.append("monailabel-admin")
    assert web.client.delete("/infer/queue/bob's").status_code == 200


def test_a_user_without_a_viewers_name_is_the_client(web, instance, monkeypatch):
    from monailabel.config import settings

    seen = []
    queue = instance.project.engine.queue
    instance.infer = lambda request: seen.append(queue.report()["running"]["client"]) or {"params": {}}
    instance.datastore = lambda: None
    web.client.post("/infer/fewshot?image=a&output=json", data={"params": "{}"})
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    web.roles[:] = ["monailabel-user"]
    for params in ({}, {"client_id": "slicer-7"}):
        web.client.post("/infer/fewshot?image=a&output=json", data={"params": json.dumps(params)})
    assert seen == ["testclient", "ann", "slicer-7@testclient"]


def test_viewers_of_one_name_on_two_computers_take_turns(web, instance):
    from lib.routes.inference import _client

    slicers = [
        _client(SimpleNamespace(client=SimpleNamespace(host=host)), {"client_id": "user-xyz"}, None)
        for host in ("10.0.0.1", "10.0.0.2")
    ]
    assert slicers == ["user-xyz@10.0.0.1", "user-xyz@10.0.0.2"]


def test_the_turn_passes_on_whatever_becomes_of_an_inference(web, instance):
    instance.datastore = lambda: None
    queue, failures = instance.project.engine.queue, iter([RuntimeError(), FewshotError("No."), None])

    def infer(request):
        if failure := next(failures):
            raise failure
        return {"params": {}}

    instance.infer = infer
    codes = [
        web.client.post("/infer/fewshot?image=a&output=json", data={"params": "{}"}).status_code
        for _ in range(3)
    ]
    assert codes == [500, 422, 200]

    def refuse(model, image):
        raise HTTPException(409, "Not yet: do this first.")

    instance.prepare_inference = refuse
    assert web.client.post("/infer/fewshot?image=a", data={"params": "{}"}).status_code == 409
    assert queue.report() == {"running": None, "waiting": []}


def test_a_training_that_waits_counts_as_running(web, instance, monkeypatch):
    monkeypatch.setattr("lib.routes.training.tasks.under_way", lambda method: [{"id": "1"}])
    for path in ("train/fewshot", "train/"):
        answer = web.client.post(f"/{path}", json={})
        assert (answer.status_code, answer.json()["detail"][:22]) == (429, "A training is running:")


def test_all_are_trained_that_the_app_names(web, instance, monkeypatch):
    started = []
    instance.trained_together = lambda: ["fewshot", "other"]
    instance.trains = lambda model: False

    def run(method, request, params, **_):
        started.append(request)
        return {"id": request["model"]}, None

    monkeypatch.setattr("lib.routes.training.AsyncTask.run", run)
    answer = web.client.post("/train/", json={"fewshot": {"max_epochs": 3}, "backbone": {"minutes": 3}})
    assert {model: entry["result"]["id"] for model, entry in answer.json().items()} == {
        "fewshot": "fewshot",
        "other": "other",
    }
    assert started == [{"model": "fewshot", "max_epochs": 3}, {"model": "other"}]
    instance.trained_together = list
    answer = web.client.post("/train/", json={})
    assert (answer.status_code, "name the one to train" in answer.json()["detail"]) == (404, True)


def test_stopping_ends_the_statistics_of_what_was_stopped(web, instance, monkeypatch):
    stopped, told = iter([{"status": "STOPPED"}, None]), []
    instance.end_stats = told.append
    monkeypatch.setattr("lib.routes.training.tasks.stop", lambda method: next(stopped))
    assert web.client.delete("/train/").json() == {"status": "STOPPED"}
    assert ["was stopped" in reason for reason in told] == [True]
    assert web.client.delete("/train/").json() is None
    assert len(told) == 1


@pytest.mark.parametrize(("path", "body"), [("wsi", {"json": {}}), ("wsi_v2", {"data": {}})])
def test_whole_slide_images_are_refused(web, instance, path, body):
    answer = web.client.post(f"/infer/{path}/fewshot?image=a", **body)
    assert (answer.status_code, "no whole-slide images" in answer.json()["detail"]) == (404, True)


def test_ohif_is_looked_at_when_the_server_starts(web):
    from lib.ohif.routes import viewer

    assert viewer.cache_info().currsize == 1


def test_every_route_is_documented_once(web):
    paths = web.client.get("/openapi.json").json()["paths"]
    for path in ("/infer/{model}", "/train/{model}", "/datastore/label", "/batch/infer/{model}"):
        assert path in paths
