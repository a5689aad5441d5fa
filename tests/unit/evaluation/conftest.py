"""A made-up dataset, a bank and a random backbone: enough to run the protocol in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.features import Backbone, FeatureBank, load_backbone
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
