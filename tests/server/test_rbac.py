"""With authentication, every route asks for the role that MONAI Label's own route for it asks for, or for more."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

pytestmark = pytest.mark.server
REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = ("monailabel-admin", "monailabel-reviewer", "monailabel-annotator", "monailabel-user")
KEY, FOREIGN = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))

STRICTER = {("/proxy/dicom/{path:path}", "POST"): ["monailabel-annotator"]}
"""What is stored in the PACS through the proxy may be a label, for which MONAI Label's own route asks as much."""

OWN = {
    ("/infer/queue", "GET"): ["monailabel-user"],
    ("/infer/queue/{ticket:path}", "DELETE"): ["monailabel-user"],
    ("/datastore/refresh", "POST"): ["monailabel-annotator"],
    ("/landmarks/{image}", "GET"): ["monailabel-user"],
    ("/landmarks/{image}/sr", "POST"): ["monailabel-annotator"],
}

ASK = """
import inspect, json, re, sys

from fastapi import HTTPException
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from monailabel import endpoints
from monailabel.app import app
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils import app as instances

from lib import authentication, routes

tokens = json.load(sys.stdin)
authentication.accept_tokens()
routes.install()


class App:
    def info(self):
        return {"name": "fewshot"}

    def __getattr__(self, name):
        raise HTTPException(418, "The app was asked.")


instances.apps[""] = App()


def every(routes):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            yield route
        elif inner is not None:
            yield from every(inner.routes)


def roles(route):
    waiting, found = [route.dependant], []
    while waiting:
        one = waiting.pop()
        found += [one.call.roles] if isinstance(one.call, RBAC) else []
        waiting += one.dependencies
    return sorted(str(role) for role in found)


def places(route):
    return [(route.path, method) for method in sorted(route.methods)]


theirs = {}
for _, module in inspect.getmembers(endpoints, inspect.ismodule):
    for route in every(getattr(getattr(module, "router", None), "routes", [])):
        theirs.update({place: roles(route) for place in places(route)})

client = TestClient(app, raise_server_exceptions=False)


def ask(method, path, token):
    headers = {"Authorization": f"Bearer {tokens[token]}"} if token else {}
    return client.request(method, re.sub(r"{[^}]*}", "x", path), headers=headers)


told = []
for route in every(app.router.routes):
    if not route.endpoint.__module__.startswith("lib."):
        continue
    for path, method in places(route):
        mine = roles(route)
        row = {"path": path, "method": method, "mine": mine, "theirs": theirs.get((path, method))}
        if mine:
            right = mine[0] if mine[0] in tokens else "monailabel-user"
            wrong = next((role for role in tokens if role.startswith("monailabel") and role not in mine), "nobody")
            for name, token in {"none": None, "wrong": "nobody" if mine == ["*"] else wrong, "right": right}.items():
                row[name] = ask(method, path, token).status_code
        told.append(row)
tried = {name: ask("GET", "/info/", name).status_code for name in tokens}
json.dump({"routes": told, "tokens": tried, "theirs": len(theirs)}, open(sys.argv[1], "w"))
"""
"""Run by a Python of its own, because MONAI Label decides at its import whether anybody has to log in."""


@pytest.fixture(scope="module")
def realm() -> Iterator[str]:
    """An OpenID server, as much of it as MONAI Label asks for."""
    public = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    class Realm(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"public_key": base64.b64encode(public).decode()}).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Realm)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/realms/test"
    server.shutdown()


def token(*roles: str, key: Any = KEY, algorithm: str = "RS256", seconds: float = 3600) -> str:
    content = {
        "preferred_username": "ann",
        "exp": time.time() + seconds,
        "realm_access": {"roles": list(roles)},
    }
    return jwt.encode(content, key, algorithm=algorithm)


@pytest.fixture(scope="module")
def answers(realm: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rbac")
    tokens = {role: token(role) for role in ROLES} | {
        "nobody": token(),
        "expired": token(ROLES[0], seconds=-60),
        "foreign": token(ROLES[0], key=FOREIGN),
        "unsigned": token(ROLES[0], key=None, algorithm="none"),
        "shared": token(ROLES[0], key="a secret that is long enough to be one", algorithm="HS256"),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder / "answers.json")],
        input=json.dumps(tokens),
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("MONAI_LABEL")},
            "MONAI_LABEL_AUTH_ENABLE": "true",
            "MONAI_LABEL_AUTH_REALM_URI": realm,
            "MONAI_LABEL_SESSION_PATH": str(folder),
            "PYTHONPATH": str(REPOSITORY),
        },
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "answers.json").read_text())


def test_every_replaced_route_asks_for_the_same_role(answers: dict[str, Any]):
    replaced = [route for route in answers["routes"] if route["theirs"] is not None]
    assert {(route["path"], route["method"]) for route in replaced} >= {
        ("/infer/{model}", "POST"),
        ("/train/{model}", "POST"),
        ("/train/", "POST"),
        ("/train/", "DELETE"),
        ("/batch/infer/{model}", "POST"),
        ("/batch/infer", "DELETE"),
        ("/infer/wsi/{model}", "POST"),
        ("/infer/wsi_v2/{model}", "POST"),
        ("/datastore/label", "PUT"),
        ("/datastore/image", "GET"),
        ("/session/", "PUT"),
        ("/info/", "GET"),
    }
    differing = {
        (route["path"], route["method"]): route for route in replaced if route["mine"] != route["theirs"]
    }
    assert {place: route["mine"] for place, route in differing.items()} == STRICTER
    assert {tuple(route["theirs"]) for route in differing.values()} == {("monailabel-user",)}
    (submitting,) = [
        route for route in replaced if route["path"] == "/datastore/label" and route["method"] == "PUT"
    ]
    assert [submitting["mine"]] == list(STRICTER.values())
    public = {route["path"] for route in replaced if not route["mine"]}
    assert all(path.startswith("/auth/") for path in public), "where people log in"


def test_every_route_of_our_own_asks_for_its_role(answers: dict[str, Any]):
    own = [route for route in answers["routes"] if route["theirs"] is None]
    assert {(route["path"], route["method"]): route["mine"] for route in own} == OWN


def test_without_the_role_nobody_gets_in(answers: dict[str, Any]):
    asked = [route for route in answers["routes"] if route["mine"]]
    assert len(asked) > 10
    assert {route["none"] for route in asked} == {401}
    assert {route["wrong"] for route in asked} == {403}
    assert not [route for route in asked if route["right"] in (401, 403)]


def test_only_tokens_of_the_realm_count(answers: dict[str, Any]):
    allowed = dict.fromkeys(("monailabel-user",), 200) | dict.fromkeys(
        ("monailabel-admin", "monailabel-reviewer", "monailabel-annotator", "nobody"), 403
    )
    forged = dict.fromkeys(("expired", "foreign", "unsigned", "shared"), 401)
    assert answers["tokens"] == allowed | forged
