"""The whole evaluation on real patients: what it measures, and that everything it promises is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.evaluation import evaluate
from fewshot.features import FeatureBank, load_backbone
from tests.unit.evaluation.page import Page

TEMPLATE = "hippocampus_040"
CASES = ("hippocampus_003", "hippocampus_017", "hippocampus_020")
LABELS = ("hippocampus_anterior", "hippocampus_posterior")
METHODS = ("auto", "contrastive", "registration")
KEYS = {
    "dataset", "shots", "templates", "backbone", "labels_without_template", "command", "created", "seeds", "runs", "rows",
    "summary", "overall", "models", "timings", "confusion", "notes", "failed", "settings", "options", "stamps",
    "signature", "versions",
}  # fmt: skip
SCORES = {
    "iou", "dice", "hd95_mm", "surface_mm", "distance_mm", "distance_px", "hit_10px", "false_positive_slices",
    "slices_without_label", "truth_ml", "predicted_ml", "volume_error", "ece", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients by one template, with two adapters and a baseline."""
    if not (data / "mr_hippocampus_msd").is_dir():
        pytest.skip(f"the hippocampi are not in {data}")
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(
        data / "mr_hippocampus_msd",
        adapters=["auto", "contrastive"],
        baselines=["registration"],
        templates=[TEMPLATE],
        cases=[TEMPLATE, *CASES],
        backbone=load_backbone("embedded", device="cpu"),
        bank=FeatureBank(tmp_path_factory.mktemp("bank")),
        out=folder,
        device="cpu",
    )
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_the_default_adapter_is_better_than_the_papers(results: dict[str, Any]) -> None:
    dice = {method: results["overall"][method]["dice_mean"] for method in METHODS}
    assert dice["auto"] > 0.7
    assert dice["auto"] > dice["contrastive"] + 0.05
    # means of the rows themselves: a case counts once, with the mean over its labels
    mine = [row["dice"] for row in results["rows"] if row["adapter"] == "auto"]
    assert dice["auto"] == pytest.approx(sum(mine) / len(mine))
    (model,) = [of for of in results["models"] if of["adapter"] == "auto"]
    assert model["scores"]["expected_dice"] > 0.7


def test_the_results_are_complete(results: dict[str, Any], out: Path) -> None:
    assert set(results) >= KEYS
    assert (results["failed"], results["templates"], results["seeds"]) == ({}, [TEMPLATE], [0])
    units = {(row["case"], row["adapter"], row["label"]) for row in results["rows"]}
    assert units == {(case, method, label) for case in CASES for method in METHODS for label in LABELS}
    assert len(units) == len(results["rows"])
    for row in results["rows"]:
        assert set(row) >= {"seed", "case", "adapter", "refine", "label"} | SCORES
        assert row["truth_ml"] > 0
        assert row["hd95_mm"] is None or 0 <= row["hd95_mm"] < 60
    for method in METHODS:
        assert results["overall"][method]["cases"] == len(CASES)
        assert set(results["summary"][method]) == set(LABELS)
        low, high = results["overall"][method]["dice_ci"]
        assert low <= results["overall"][method]["dice_mean"] <= high
        assert set(results["confusion"][method]) == {"background", *LABELS}
        for case in CASES:
            assert (out / "seed-0" / "predictions" / method / f"{case}.nii.gz").is_file()
    assert all(timing["total"] > 0 for timing in results["timings"])
    assert (out / "seed-0" / "models" / "auto.safetensors").is_file()


def test_the_report_says_the_same(results: dict[str, Any], out: Path) -> None:
    page = Page(out / "report.html")
    ((headers, *rows), *_) = page.tables["overall"]
    dice = {row[0].removesuffix(" baseline"): row[headers.index("Dice")] for row in rows}
    exact = page.of("td", "title")
    for method in METHODS:
        reached = results["overall"][method]["dice_mean"]
        assert dice[method].split()[0] == f"{reached:.2f}"
        assert f"{method}: {reached:.4f}" in exact
