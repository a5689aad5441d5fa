"""The server listens to this machine only unless told, finds its tools and downloads none."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from monailabel.config import settings

from fewshot.errors import FewshotError
from lib import starting


def listening(monkeypatch, *words, host="0.0.0.0", module="monailabel.main", workers=1):
    """Where a server listens that was started with these words."""
    monkeypatch.setattr(sys, "argv", ["main.py", "start_server", "--app", "apps/fewshot", *words])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name=module)))
    server = uvicorn.Server(uvicorn.Config(lambda: None, host=host, port=8000, workers=workers))
    starting.listen(server)
    return server.config.host


def test_only_this_machine_by_default(monkeypatch, caplog):
    with caplog.at_level("INFO"):
        assert listening(monkeypatch) == "127.0.0.1"
    assert "--host 0.0.0.0 lets the network in" in caplog.text


@pytest.mark.parametrize(
    "words",
    [("--host", "0.0.0.0"), ("--host=0.0.0.0",), ("-i", "0.0.0.0"), ("-i0.0.0.0",), ("--ho", "0.0.0.0")],
)
def test_whoever_opens_it_is_warned(monkeypatch, caplog, words):
    assert listening(monkeypatch, *words) == "0.0.0.0"
    assert "nobody has to log in" in caplog.text


@pytest.mark.parametrize("host", ["192.168.1.5", "::", "example.org"])
def test_every_other_address_is_open(monkeypatch, caplog, host):
    assert listening(monkeypatch, "--host", host, host=host) == host
    assert "nobody has to log in" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_no_warning_where_nobody_else_gets_in(monkeypatch, caplog, host):
    assert listening(monkeypatch, "--host", host, host=host) == host
    assert not caplog.records


def test_no_warning_where_people_log_in(monkeypatch, caplog):
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    assert listening(monkeypatch, "--host", "0.0.0.0") == "0.0.0.0"
    assert not caplog.records


@pytest.mark.parametrize("other", [{"module": "uvicorn"}, {"workers": 2}])
def test_what_listens_already_or_was_started_otherwise_is_left_alone(monkeypatch, caplog, other):
    assert listening(monkeypatch, **other) == "0.0.0.0"
    assert "nobody has to log in" in caplog.text


def test_tools_beside_this_python_are_found(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    starting.find_tools()
    assert os.environ["PATH"].split(":") == [str(Path(sys.executable).parent), "/usr/bin", "/bin"]


def test_a_missing_converter_is_named_and_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FewshotError, match="pip install dcmqi"):
        starting.require_dicom_tools()
    (tmp_path / "itkimage2segimage").write_text("#!/bin/sh\n")
    (tmp_path / "itkimage2segimage").chmod(0o755)
    starting.require_dicom_tools()
