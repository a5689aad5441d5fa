"""The protocol of landmarks on made-up heads, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot.evaluation.landmarks import evaluate_landmarks, protocol
from fewshot.features import Backbone, FeatureBank
from tests.unit.evaluation.landmarks.heads import write_heads


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cases with points, one of them without crown."""
    return write_heads(tmp_path / "heads")


@pytest.fixture
def run_with_report(folder: Path, backbone: Backbone, bank: FeatureBank, tmp_path: Path) -> Any:
    """`evaluate_landmarks` on the heads, from one template unless told."""

    def call(**changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "adapters": ["basic"], "templates": ["ann"], "backbone": backbone, "bank": bank, "out": tmp_path / "out",
        }  # fmt: skip
        return evaluate_landmarks(changes.pop("folder", folder), **(arguments | changes))

    return call


@pytest.fixture
def run(run_with_report: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same without the report."""
    monkeypatch.setattr(protocol, "write_report", lambda *_: None)
    return run_with_report
