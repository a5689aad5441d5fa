"""What OHIF asks the PACS through /proxy/dicom, with a small stand-in for the PACS."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import anyio
import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient
from urllib3.exceptions import HTTPError

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

pytestmark = pytest.mark.server

BIG = bytes(range(256)) * 10_000


class Pacs(BaseHTTPRequestHandler):
    """Remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append(("GET", self.path, dict(self.headers), b""))
        if "slow" in self.path:
            time.sleep(1)
        if "chunked" in self.path:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Content-Type", "multipart/related; boundary=b")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")
            return
        body = gzip.compress(BIG) if "zipped" in self.path else BIG
        self.send_response(404 if "missing" in self.path else 200)
        if "zipped" in self.path:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "keep-alive, X-Hop")
        self.send_header("Keep-Alive", "timeout=3")
        self.send_header("X-Hop", "between us")
        self.end_headers()
        self.wfile.write(body if "broken" not in self.path else body[:1000])
        if "broken" in self.path:
            self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(("POST", self.path, dict(self.headers), body))
        self.send_response(202)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A web application with the proxy, and the PACS behind it."""
    from monailabel.config import settings

    from lib.routes import proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", url + "/")
    proxy._threads.cache_clear()  # it belongs to the event loop of one test
    app = FastAPI()
    app.include_router(proxy.router)
    with TestClient(app, raise_server_exceptions=False) as client:
        try:
            yield SimpleNamespace(client=client, seen=server.seen, settings=settings, server=server)
        finally:
            server.shutdown()
            server.server_close()


def test_a_get_arrives_with_its_query_and_what_the_viewer_accepts(proxy):
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    sent = {"Accept": accept, "Authorization": "Bearer ours", "Cookie": "a=b", "Range": "bytes=0-"}
    answer = proxy.client.get("/proxy/dicom/qido/studies?limit=101&PatientName=A%20B*", headers=sent)
    assert (answer.status_code, answer.content) == (200, BIG)
    assert answer.headers["content-type"] == "application/dicom+json"
    (method, path, headers, _), *more = proxy.seen
    assert (method, path, more) == ("GET", "/dicom-web/studies?limit=101&PatientName=A%20B*", [])
    received = {name.lower(): value for name, value in headers.items()}
    assert (received["accept"], received["range"]) == (accept, "bytes=0-")
    assert received["host"] == f"127.0.0.1:{proxy.server.server_port}"
    assert not {"authorization", "cookie"} & set(received)


def test_nothing_of_one_hop_is_handed_on(proxy):
    answer = proxy.client.get("/proxy/dicom/wado/studies")
    assert not {"connection", "keep-alive", "x-hop", "transfer-encoding"} & set(answer.headers)
    assert answer.headers["content-length"] == str(len(BIG))


@pytest.mark.parametrize(
    ("path", "content"), [("zipped", BIG), ("chunked", b"firstsecond"), ("missing", BIG)]
)
def test_answers_stay_what_they_are(proxy, path, content):
    answer = proxy.client.get(f"/proxy/dicom/wado/{path}")
    assert (answer.status_code, answer.content) == (404 if path == "missing" else 200, content)


def test_a_post_arrives_whole(proxy):
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + BIG + b"\r\n--b--"
    answer = proxy.client.post("/proxy/dicom/wado/studies?x=1", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (202, {})
    method, path, headers, received = proxy.seen[0]
    assert (method, path, received) == ("POST", "/dicom-web/studies?x=1", body)
    assert {name.lower(): value for name, value in headers.items()}["content-type"] == kind


def test_services_may_have_prefixes(proxy, monkeypatch):
    for service in ("WADO", "QIDO", "STOW"):
        monkeypatch.setattr(proxy.settings, f"MONAI_LABEL_{service}_PREFIX", f"my-{service.lower()}")
    for path in ("wado/a", "qido/b", "qido/c/metadata", "stow/d", "e/f"):
        proxy.client.get(f"/proxy/dicom/{path}")
    assert [path for _, path, _, _ in proxy.seen] == [
        "/dicom-web/my-wado/a",
        "/dicom-web/my-qido/b",
        "/dicom-web/my-wado/c/metadata",
        "/dicom-web/my-stow/d",
        "/dicom-web/e/f",
    ]


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        # encoded once more than a viewer would: the test client decodes twice, a web server once
        ("wado/%25252e%25252e/%25252e%25252e/x", "/dicom-web/%252e%252e/%252e%252e/x"),
        ("%25252e%25252e/x", "/dicom-web/%252e%252e/x"),
        ("wado/a%3Fb%23c%20d", "/dicom-web/a%3Fb%23c%20d"),
        ("wado/studies/1.2/series/3.4/instances/5/frames/1,2", None),
        ("wado/studies/1.2/bulkdata/a:b@c?x=%3F", None),
    ],
)
def test_a_path_stays_what_was_asked(proxy, asked, path):
    proxy.client.get(f"/proxy/dicom/{asked}")
    assert [path for _, path, _, _ in proxy.seen] == [path or f"/dicom-web/{asked.removeprefix('wado/')}"]


def test_the_pacs_is_told_who_we_are(proxy, monkeypatch):
    monkeypatch.setattr(proxy.settings, "MONAI_LABEL_DICOMWEB_USERNAME", "ann")
    monkeypatch.setattr(proxy.settings, "MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    proxy.client.get("/proxy/dicom/qido/studies")
    assert proxy.seen[0][2]["Authorization"] == "Basic YW5uOnNlY3JldA=="


def test_a_slow_pacs_is_told(proxy, monkeypatch):
    monkeypatch.setattr(proxy.settings, "MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT", 0.2)
    answer = proxy.client.get("/proxy/dicom/qido/slow")
    assert (answer.status_code, "has not answered within 0.2 s" in answer.json()["detail"]) == (504, True)


def test_a_pacs_that_is_down_is_told(proxy, monkeypatch):
    proxy.server.shutdown()
    proxy.server.server_close()
    answer = proxy.client.get("/proxy/dicom/qido/studies")
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (502, True)


def test_an_answer_that_breaks_off_is_no_whole_answer(proxy):
    from lib.routes.proxy import _chunks

    async def read() -> None:
        answer = requests.get(f"{proxy.settings.MONAI_LABEL_STUDIES}broken", stream=True, timeout=30)
        async for _ in _chunks(answer):
            pass

    with pytest.raises(HTTPError, match="IncompleteRead"):
        anyio.run(read)


@pytest.mark.parametrize(
    ("studies", "path", "status"),
    [(None, "a/%2e%2e/%2e%2e/instances", 400), ("/data/ct", "qido/studies", 404)],
)
def test_what_is_not_in_the_pacs(proxy, monkeypatch, studies, path, status):
    if studies:
        monkeypatch.setattr(proxy.settings, "MONAI_LABEL_STUDIES", studies)
    answer = proxy.client.get(f"/proxy/dicom/{path}")
    assert (answer.status_code, isinstance(answer.json()["detail"], str)) == (status, True)
    assert proxy.seen == []


def test_many_slow_answers_leave_threads_for_others(proxy):
    from lib.routes.proxy import THREADS

    proxy.client.app.add_api_route("/quick", lambda: "here", methods=["GET"])
    asked = [
        threading.Thread(target=proxy.client.get, args=("/proxy/dicom/qido/slow",))
        for _ in range(THREADS * 3)
    ]
    start = time.monotonic()
    [thread.start() for thread in asked]
    while len(proxy.seen) < THREADS:
        assert time.monotonic() - start < 30
        time.sleep(0.01)
    assert proxy.client.get("/quick").json() == "here"
    assert len(proxy.seen) <= THREADS * 2, "the quick one had to wait for the slow ones"
    [thread.join(30) for thread in asked]
