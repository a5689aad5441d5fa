"""A made-up dataset, a bank, a random backbone and made-up baselines: enough to run the protocol in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot import baselines
from fewshot.evaluation import evaluate, protocol
from fewshot.features import Backbone, FeatureBank, load_backbone
from tests.unit.evaluation import fakes
from tests.unit.evaluation.shapes import LABELS, NAMES, WITHOUT_BAR, write_case


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five labelled cases, one of them without bar."""
    folder = tmp_path / "shapes"
    for seed, name in enumerate(NAMES):
        write_case(folder, name, seed, bar=name != WITHOUT_BAR)
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS, "modality": "MR"}))
    return folder


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Random weights."""
    return load_backbone("random-tiny", device="cpu")


@pytest.fixture
def bank(tmp_path: Path) -> FeatureBank:
    """An empty bank."""
    return FeatureBank(tmp_path / "bank")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[fakes.Copy]:
    """The made-up baselines can be evaluated."""
    for name, place in fakes.BASELINES.items():
        monkeypatch.setitem(baselines.BASELINES, name, place)
    monkeypatch.setattr(fakes.Copy, "fitted", [])
    return fakes.Copy


@pytest.fixture
def run_with_report(folder: Path, backbone: Backbone, bank: FeatureBank, tmp_path: Path) -> Any:
    """`evaluate` on the made-up dataset, from one template unless told."""

    def call(**changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "adapters": ["basic"], "templates": ["ann"], "backbone": backbone, "bank": bank, "out": tmp_path / "out",
        }  # fmt: skip
        if "classification" in changes.get("adapters", ()):
            arguments["options"] = {"classification": {"epochs": 2}}
        return evaluate(folder, **(arguments | changes))

    return call


@pytest.fixture
def run(run_with_report: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same without the report, whose pictures take longest."""
    monkeypatch.setattr(protocol, "write_report", lambda *_: None)
    return run_with_report
