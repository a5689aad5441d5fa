"""Dockerfile and docker-compose.yml, as far as they can be checked without Docker."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fewshot import serving
from fewshot.cli import app
from fewshot.demo.orthanc import configuration

yaml = pytest.importorskip("yaml", reason="PyYAML comes with MONAI Label")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def allowed() -> tuple[set[str], list[str]]:
    """What .dockerignore lets in at the top, and the patterns that it takes out again."""
    lines = [
        line for line in (REPOSITORY / ".dockerignore").read_text().split("\n") if line[:1] not in ("", "#")
    ]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line[0] == "!"}, [line for line in lines[1:] if line[0] != "!"]


def test_both_services_answer_this_machine_only(compose):
    assert set(compose["services"]) == {"orthanc", "fewshot"}
    published = [port for service in compose["services"].values() for port in service["ports"]]
    assert sorted(published) == ["127.0.0.1:8000:8000", "127.0.0.1:8042:8042"]
    assert not any(service.get("network_mode") for service in compose["services"].values())


def test_the_server_waits_for_the_pacs_that_it_is_pointed_at(compose):
    server, orthanc = compose["services"]["fewshot"], compose["services"]["orthanc"]
    root = configuration(Path(), 8042, Path())["DicomWeb"]["Root"]  # Orthanc's own default too
    assert server["command"] == [f"http://orthanc:8042{root}".rstrip("/")]
    assert server["depends_on"] == {"orthanc": {"condition": "service_healthy"}}
    assert orthanc["healthcheck"]["test"][0] == "CMD"
    assert orthanc["environment"]["DICOM_WEB_PLUGIN_ENABLED"] == "true"
    assert orthanc["environment"]["ORTHANC__AUTHENTICATION_ENABLED"] == "false"
    assert re.fullmatch(r"orthancteam/orthanc:\d+\.\d+\.\d+", orthanc["image"])


def test_what_must_last_is_in_named_volumes(compose):
    mounts = {
        name: dict(each.split(":") for each in service["volumes"])
        for name, service in compose["services"].items()
    }
    assert mounts == {"orthanc": {"orthanc": "/var/lib/orthanc/db"}, "fewshot": {"fewshot": "/data"}}
    assert set(compose["volumes"]) == {"orthanc", "fewshot"}
    entry = next(rest for word, rest in instructions() if word == "ENTRYPOINT")
    settings = " ".join(rest for word, rest in instructions() if word == "ENV")
    assert "workspace=/data/" in entry
    assert "FEWSHOT_BANK=/data/" in settings


def test_the_image_is_built_from_files_that_are_there_and_let_in(compose):
    assert compose["services"]["fewshot"]["build"]["context"] == "."
    let_in, taken_out = allowed()
    copied = [
        path
        for word, rest in instructions()
        if word == "COPY"
        for path in rest.split()[:-1]
        if path[:2] != "--"
    ]
    assert len(copied) >= 7
    for path in copied:
        assert (REPOSITORY / path).exists()
        assert path.split("/")[0] in let_in
        assert not any(fnmatch.fnmatch(path, pattern) for pattern in taken_out)
    assert {path.split("/")[0] for path in copied} == let_in


def test_the_image_has_the_tested_versions_and_no_rights_of_root():
    installs = [
        part for word, rest in instructions() if word == "RUN" for part in rest.split("&&") if "pip" in part
    ]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in part for part in installs)
    words = [word for word, _ in instructions()]
    assert dict(instructions())["USER"] != "root"
    assert words.index("USER") < words.index("ENTRYPOINT")


def test_the_image_starts_the_server_for_everyone_who_reaches_the_container(compose, monkeypatch):
    entry = json.loads(next(rest for word, rest in instructions() if word == "ENTRYPOINT"))
    program, *arguments = [*entry, *compose["services"]["fewshot"]["command"]]
    started = []
    monkeypatch.setattr(serving, "serve", lambda studies, **more: started.append((studies, more)))
    assert program == "fewshot"
    assert CliRunner().invoke(app, arguments).exit_code == 0
    settings = {"host": "0.0.0.0", "port": 8000, "conf": {"workspace": "/data/workspace"}}
    assert started == [("http://orthanc:8042/dicom-web", settings)]


def test_both_files_say_that_they_were_never_run():
    for name in ("Dockerfile", "docker-compose.yml"):
        assert "never run" in (REPOSITORY / name).read_text().split("\n\n")[0].replace("\n#", "")
