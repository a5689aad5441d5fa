"""A stand-in for the Hugging Face hub on this machine, as far as a download of one file asks it."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``content`` as model.safetensors of every repository.

    Attributes:
        status: what every request is answered with.
        checksum: what the hub says the file's SHA-256 is.
        broken: how many GET answers break off in the middle.
        answers: cleared, no answer comes until it is set.
        requests: what was asked: method, path, range.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.checksum = hashlib.sha256(content).hexdigest()
        self.status = 200
        self.broken = 0
        self.answers = threading.Event()
        self.answers.set()
        self.requests: list[tuple[str, str, str | None]] = []
        self.url = ""

    @property
    def transfers(self) -> list[str | None]:
        """The ranges of the GET requests."""
        return [span for method, _, span in self.requests if method == "GET"]


@contextmanager
def serve_hub(content: bytes):
    hub = Hub(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Say nothing."""

        def do_HEAD(self):
            self.answer(send=False)

        def do_GET(self):
            self.answer(send=True)

        def answer(self, *, send):
            span = self.headers.get("Range")
            hub.requests.append((self.command, self.path, span))
            hub.answers.wait(20)
            if hub.status != 200:
                self.send_response(hub.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
            body = hub.content[start:]
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hub.checksum}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if send:
                if hub.broken:
                    hub.broken -= 1
                    body = body[: len(body) // 2]
                    self.close_connection = True
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.answers.set()
        server.shutdown()
        server.server_close()
