"""The command that starts the server."""

import sys
from pathlib import Path

import pytest

from fewshot import serving
from fewshot.errors import FewshotError


def test_the_command_needs_no_directory_and_no_active_venv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = serving.serve_command("my studies", port=8123, conf={"labels": "left kidney,liver"})
    assert command[:4] == [sys.executable, "-m", "monailabel.main", "start_server"]
    assert Path(command[command.index("--app") + 1], "main.py").is_file()
    assert command[command.index("--studies") + 1] == str(tmp_path / "my studies")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-3:] == ["--conf", "labels", "left kidney,liver"]


def test_an_address_is_left_as_it_is():
    assert "http://pacs/dicom-web" in serving.serve_command("http://pacs/dicom-web")


def test_tools_of_this_python_come_first(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert serving.serve_environment()["PATH"].split(":") == [str(Path(sys.executable).parent), "/usr/bin"]


def test_without_monai_label_it_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FewshotError, match="MONAI Label is not installed"):
        serving.serve_command("studies")


def test_serving_becomes_the_server(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("os.execve", lambda *arguments: calls.append(arguments))
    serving.serve(str(tmp_path), port=1234)
    ((program, command, environment),) = calls
    assert program == sys.executable == command[0]
    assert environment["PATH"]
