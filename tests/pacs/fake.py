"""A tiny DICOMweb server in this process: enough QIDO, WADO and STOW, and every way to fail."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import pydicom

BOUNDARY = "a-boundary"


class FakePacs:
    """A server on a free port that holds what was stored.

    Attributes:
        asked: every request's method and path.
        status: answer everything with this; 0 works.
        broken: paths that contain one of these texts are answered with 500.
        seconds: wait so long before each answer.
        body: answer everything with this text.
        slow: wait so long before answering paths that contain the text.
        page: series in one answer at most.
        offsets: whether it knows how to go on after its first answer: "yes", "refused", or "ignored".
        extra: entries that it lists before all others.
        headers: changes an object's metadata before they are sent.
        sends: files of a series that are sent at most; 0 for all.
        refuses: answer 200 to a STOW and report a failure.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.seconds, self.body, self.page = 0, 0.0, "", 0
        self.broken: set[str] = set()
        self.slow: dict[str, float] = {}
        self.offsets = "yes"
        self.extra: list[dict] = []
        self.headers: Callable[[dict], object] = lambda _entry: None
        self.sends = 0
        self.refuses = False
        self.files: dict[tuple[str, str], dict[str, pydicom.Dataset]] = defaultdict(dict)
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/dicom-web"

    def start(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.answer(self, "GET", b"")

            def do_POST(self) -> None:
                fake.answer(self, "POST", self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> FakePacs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def store(self, *things: Path | pydicom.Dataset) -> None:
        """Store files, folders of files, or datasets."""
        for thing in things:
            if isinstance(thing, Path):
                paths = sorted(thing.iterdir()) if thing.is_dir() else [thing]
                self.store(*(pydicom.dcmread(path) for path in paths))
            else:
                series = self.files[thing.StudyInstanceUID, thing.SeriesInstanceUID]
                series[thing.SOPInstanceUID] = thing

    def delete(self, uid: str) -> None:
        """Delete a series."""
        self.files = defaultdict(dict, {key: held for key, held in self.files.items() if uid not in key})

    def queries(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked

    def answer(self, request: BaseHTTPRequestHandler, method: str, body: bytes) -> None:
        url = urlsplit(request.path)
        self.asked.append(f"{method} {url.path}")
        time.sleep(self.seconds + sum(wait for text, wait in self.slow.items() if text in url.path))
        parts = url.path.removeprefix("/dicom-web/").split("/")
        if self.status or any(text in url.path for text in self.broken):
            self._send(request, self.status or 500, "text/plain", b"no")
        elif self.body:
            self._send(request, 200, "text/html", self.body.encode())
        elif method == "POST":
            self._stow(request, body)
        elif parts[0] == "series":
            query = parse_qs(url.query)
            if "offset" in query and self.offsets == "refused":
                self._send(request, 400, "text/plain", b"no")
            else:
                self._send_json(request, self._qido(query))
        else:
            self._wado(request, parts)

    def _qido(self, query: dict[str, list[str]]) -> list[dict]:
        listed = list(self.extra)
        for held in self.files.values():
            first = next(iter(held.values()))
            if query.get("Modality", [first.Modality])[0] != first.Modality:
                continue
            short = pydicom.Dataset()
            for keyword in ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "StudyDate"):
                setattr(short, keyword, first.get(keyword))
            short.NumberOfSeriesRelatedInstances = len(held)
            listed.append(short.to_json_dict())
        start = int(query.get("offset", ["0"])[0]) if self.offsets == "yes" else 0
        return listed[start : start + self.page] if self.page else listed[start:]

    def _wado(self, request: BaseHTTPRequestHandler, parts: list[str]) -> None:
        held = self.files.get((parts[1], parts[3]))
        if not held:
            self._send(request, 404, "text/plain", b"not here")
        elif parts[-1] == "metadata":
            entries = [_headers(dataset) for dataset in held.values()]
            for entry in entries:
                self.headers(entry)
            self._send_json(request, entries)
        else:
            files = [held[parts[5]]] if len(parts) > 5 else list(held.values())[: self.sends or None]
            body = b"".join(
                f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + _bytes(dataset)
                for dataset in files
            )
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            self._send(request, 200, kind, body + f"\r\n--{BOUNDARY}--\r\n".encode())

    def _stow(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        answer = pydicom.Dataset()
        if self.refuses:
            failed = pydicom.Dataset()
            failed.FailureReason = 0xA700
            answer.FailedSOPSequence = [failed]
        else:
            self.store(pydicom.dcmread(BytesIO(body[body.index(b"\r\n\r\n") + 4 :])))
        self._send(request, 200, "application/dicom+json", json.dumps(answer.to_json_dict()).encode())

    def _send_json(self, request: BaseHTTPRequestHandler, content: object) -> None:
        self._send(request, 200, "application/dicom+json", json.dumps(content).encode())

    def _send(self, request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # whoever asked did not wait


def _headers(dataset: pydicom.Dataset) -> dict:
    return {tag: value for tag, value in dataset.to_json_dict().items() if tag != "7FE00010"}


def _bytes(dataset: pydicom.Dataset) -> bytes:
    with BytesIO() as out:
        pydicom.dcmwrite(out, dataset, write_like_original=False)
        return out.getvalue()
