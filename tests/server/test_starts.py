"""Starting the server: from anywhere, again on the same workspace, and with mistakes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.server.conftest import APP, LABELS, REPOSITORY, Server, partial, sentence, write_studies

pytestmark = pytest.mark.server


def test_console_script_from_the_apps_folder_with_relative_paths(tmp_path: Path, truth: dict):
    """There a folder named fewshot, the app itself, stands beside, and packages of our names are on the path."""
    write_studies(tmp_path / "studies")
    script = Path(sys.executable).parent / "monailabel"
    if not script.exists():
        pytest.skip("MONAI Label's console script is not beside this Python")
    foreign = tmp_path / "foreign"
    for package in ("lib", "fewshot"):
        (foreign / package).mkdir(parents=True)
        (foreign / package / "__init__.py").touch()
    studies = Path("..", *[".."] * len(REPOSITORY.parts[1:]), *tmp_path.parts[1:], "studies")
    server = Server(
        tmp_path,
        tmp_path / "studies",
        command=[str(script)],
        cwd=APP.parent,
        arguments=["--app", "fewshot", "--studies", str(studies)],
        environment={
            "MONAILABEL_PYEXE": sys.executable,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(foreign),
        },
    )
    try:
        server.wait()
        assert server.submit("ct_0", partial(truth["ct_0"]), list(LABELS)).status_code == 200
        assert server.train("fewshot", max_epochs=1)[-1]["epoch"] == 1
        _, result = server.segment("fewshot", "ct_1")
        assert result["label_names"] == {"liver": 1, "spleen": 2}
    finally:
        server.stop()


def test_labels_and_adapters_outlive_a_restart(trained: Server, tmp_path: Path):
    """With a name that is no longer configured, one that is new, and one renamed in the file."""
    for part in ("my studies", "workspace"):
        shutil.copytree(trained.root / part, tmp_path / part)
    before = trained.client.info()["models"]["fewshot"]
    file = tmp_path / "workspace" / "labels.json"
    content = json.loads(file.read_text())
    content["labels"] = {("hepar" if name == "liver" else name): v for name, v in content["labels"].items()}
    file.write_text(json.dumps(content))
    server = Server(tmp_path, tmp_path / "my studies", conf={"labels": "aorta,spleen"})
    try:
        server.wait()
        info = server.client.info()
        expected = [("hepar" if name == "liver" else name) for name in before["labels"]]
        assert info["labels"] == [*expected, "aorta"]
        assert info["models"]["fewshot"]["config"]["version"] == before["config"]["version"]
        old, _ = trained.segment("fewshot", "ct_3")
        new, result = server.segment("fewshot", "ct_3")
        assert result["label_names"] == {name: value for value, name in enumerate(info["labels"], start=1)}
        np.testing.assert_array_equal(
            *(sitk.GetArrayFromImage(sitk.ReadImage(str(one))) for one in (old, new))
        )
        _, result = server.segment("fewshot_basic", "ct_3")
        assert "hepar" in result["confidence"]
    finally:
        server.stop()


@pytest.fixture
def dicomweb() -> Iterator[str]:
    """An empty DICOMweb archive."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    archive = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=archive.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{archive.server_port}/dicom-web"
    archive.shutdown()


def test_a_dicomweb_archive_is_served(tmp_path: Path, dicomweb: str):
    tools = Path(sys.executable).parent
    if not (tools / "itkimage2segimage").exists():
        pytest.skip("dcmqi is not installed")
    server = Server(
        tmp_path,
        tmp_path,
        arguments=["--app", str(APP), "--studies", dicomweb],
        environment={
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"),
            "PATH": f"{tools}:{os.environ['PATH']}",
        },
    )
    try:
        server.wait()
        assert server.client.info()["datastore"]["total"] == 0
        assert "No template yet" in sentence(server.infer("fewshot", "1.2.3"), 409)
        assert server.client.next_sample("random", {}) == {}
    finally:
        server.stop()


def test_a_mistake_in_conf_ends_the_start_with_one_sentence(tmp_path: Path):
    (tmp_path / "studies").mkdir()
    server = Server(tmp_path, tmp_path / "studies", conf={"plane": "diagonal"})
    try:
        assert server.process.wait(300) != 0
        log = server.log.read_text()
        assert "--conf plane diagonal: There is no plane 'diagonal'" in log
        assert "Traceback" not in log
    finally:
        server.stop()
