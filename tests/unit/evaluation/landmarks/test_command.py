"""``fewshot evaluate`` on landmarks, as a person calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot import cli
from fewshot.phantoms import write_studies


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The script's main: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fewshot", "evaluate", *map(str, arguments)])
        monkeypatch.setenv("FEWSHOT_BANK", str(tmp_path / "bank"))
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_dataset_of_points_is_evaluated_as_such(call: Any, folder: Path, tmp_path: Path) -> None:
    code, out, err = call(
        folder, "--adapters", "none", "--baselines", "registration", "--out", tmp_path / "out", "--no-crops",
        "--json", tmp_path / "numbers.json", "--max-cases", 2,
    )  # fmt: skip
    assert code == 0, err
    assert all(text in out for text in ("heads", "all landmarks", "nose", "report.html"))
    results = json.loads((tmp_path / "numbers.json").read_text())
    assert results["task"] == "landmarks"
    assert set(results["views"]) == {"whole"}
    assert (tmp_path / "out" / "report.html").is_file()


def test_labels_are_landmarks_on_request(call: Any, tmp_path: Path) -> None:
    write_studies(tmp_path / "phantoms", 2, shape=(40, 34, 16))
    code, out, err = call(
        tmp_path / "phantoms", "--landmarks", "liver,kidney_left", "--adapters", "none", "--baselines", "registration",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    assert "kidney_left" in out
    assert "spine" not in out
    assert "false" in out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--refine", "walker"], "--refine is for labels"),
        (["--prompts", "box"], "--prompts is for labels"),
        (["--components", "largest"], "--components is for labels"),
        (["--template-slices", "2"], "--template-slices is for labels"),
        (["--labels", "nose", "--landmarks", "all"], "--labels is for labels"),
        (["--complete"], "--complete or --partial is for labels"),
        (["--landmarks", "ear"], "ear"),
        (["--set", "contrastive.epochs=2"], "contrastive, which is not evaluated"),
    ],
)
def test_what_makes_no_sense_for_landmarks_is_refused(
    call: Any, folder: Path, tmp_path: Path, option: list[str], said: str
) -> None:
    code, _, err = call(folder, "--adapters", "basic", "--out", tmp_path / "out", *option)
    assert code == 1
    assert said in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_crops_are_for_landmarks(call: Any, tmp_path: Path) -> None:
    write_studies(tmp_path / "phantoms", 2, shape=(20, 17, 8))
    code, _, err = call(tmp_path / "phantoms", "--no-crops", "--out", tmp_path / "out")
    assert code == 1
    assert "--landmarks all" in " ".join(err.split())
