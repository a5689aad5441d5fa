"""The protocol from folder to report, with a random backbone: what is computed, kept and refused."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate, protocol
from fewshot.evaluation.metrics import label_scores
from fewshot.features import Backbone, FeatureBank
from fewshot.model import load_model
from tests.unit.evaluation.shapes import LABELS, NAMES, WITHOUT_BAR, write_case

ROW = {
    "case", "adapter", "refine", "label", "iou", "dice", "distance_mm", "distance_px", "hit_10px",
    "false_positive_slices", "slices_without_label", "seconds",
}  # fmt: skip


@pytest.fixture
def run_with_report(folder: Path, backbone: Backbone, bank: FeatureBank, tmp_path: Path) -> Any:
    """`evaluate` on the made-up dataset, from one template unless told."""

    def call(**changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "adapters": ["basic"], "templates": ["ann"], "backbone": backbone, "bank": bank, "out": tmp_path / "out",
        }  # fmt: skip
        return evaluate(folder, **(arguments | changes))

    return call


@pytest.fixture
def run(run_with_report: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same without the report, whose pictures take longest."""
    monkeypatch.setattr(protocol, "write_report", lambda *_: None)
    return run_with_report


def test_every_other_case_adapter_and_label_has_a_row(run: Any, tmp_path: Path) -> None:
    results = run(adapters=["basic", "classification"])
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert {key: results[key] for key in ("dataset", "shots", "templates", "backbone")} == {
        "dataset": "shapes", "shots": 1, "templates": ["ann"], "backbone": "random-tiny",
    }  # fmt: skip
    found = [(row["case"], row["adapter"], row["label"]) for row in results["rows"]]
    assert found == [
        (case, adapter, label)
        for case in NAMES[1:]
        for adapter in ("basic", "classification")
        for label in LABELS
    ]
    assert all(row.keys() >= ROW for row in results["rows"])
    assert results["summary"]["basic"]["bar"]["cases_with_label"] == 3


def test_rows_are_the_scores_of_the_kept_predictions(run: Any, folder: Path, tmp_path: Path) -> None:
    """In planes of the thick slices, from files that any viewer opens."""
    rows = {(row["case"], row["label"]): row for row in run()["rows"]}
    for name in NAMES[1:]:
        truth = nib.load(folder / "labels" / f"{name}.nii.gz")
        predicted = nib.load(tmp_path / "out" / "predictions" / "basic" / f"{name}.nii.gz")
        scores = label_scores(
            np.asarray(truth.dataobj),
            np.asarray(predicted.dataobj),
            LABELS,
            affine=truth.affine,
            slice_axis=2,
        )
        for label, of in scores.items():
            assert {key: rows[name, label][key] for key in vars(of)} == vars(of)
    assert rows[WITHOUT_BAR, "bar"]["dice"] is None
    assert rows[WITHOUT_BAR, "bar"]["slices_without_label"] == 6


def test_the_report_needs_nothing_else(run_with_report: Any, tmp_path: Path) -> None:
    run_with_report(command="fewshot evaluate shapes --seed 0 && <x>")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "fewshot evaluate shapes --seed 0 &amp;&amp; &lt;x&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "url(" not in page
    assert "@import" not in page
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert len(pictures) == 3
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    assert all(rank in page for rank in ("best", "median", "worst", "prefers-color-scheme", "<svg"))


def test_a_kept_model_is_the_one_that_predicted(run: Any, tmp_path: Path) -> None:
    run()
    model = load_model(tmp_path / "out" / "models" / "basic.safetensors")
    assert (model.labels, model.templates) == (LABELS, ["ann"])


def test_each_volume_is_read_once_and_featurised_once(
    run: Any, bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = protocol.Dataset.volume

    def volume(dataset: Any, case: Any) -> Any:
        read.append(case.name)
        return original(dataset, case)

    monkeypatch.setattr(protocol.Dataset, "volume", volume)
    run(adapters=["basic", "classification", "contrastive"])
    assert sorted(read) == sorted(NAMES)
    assert len(list(bank.folder.glob("*.safetensors"))) == len(NAMES)


def test_an_interrupted_run_goes_on_where_it_stopped(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int, **_: float) -> None:
        if (stage, done, total) == ("predict", 3, 8):
            raise StopError

    with pytest.raises(StopError):
        run(adapters=["basic", "classification"], progress=stop)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert len(rows) == 3 * len(LABELS)
    kept = [row["seconds"] for row in rows]

    predicted: list[str] = []
    original = protocol.predict
    monkeypatch.setattr(
        protocol, "predict", lambda v, m, **o: predicted.append(v.name) or original(v, m, **o)
    )
    monkeypatch.setattr(protocol, "fit", None)  # the adapters are there
    results = run(adapters=["basic", "classification"])
    assert len(predicted) == 5
    assert len(results["rows"]) == 8 * len(LABELS)
    again = {(row["case"], row["adapter"], row["label"]): row["seconds"] for row in results["rows"]}
    assert [again[row["case"], row["adapter"], row["label"]] for row in rows] == kept


def test_an_interruption_changes_no_number(run: Any, tmp_path: Path) -> None:
    def scores(results: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: row[key] for key in row if key != "seconds"} for row in results["rows"]]

    whole = run(adapters=["contrastive"], out=tmp_path / "whole")
    run(adapters=["contrastive"], max_cases=2)
    assert scores(run(adapters=["contrastive"])) == scores(whole)


def test_more_cases_and_adapters_add_to_the_results(run: Any) -> None:
    first = run(max_cases=2)
    assert len(first["rows"]) == 2 * len(LABELS)
    second = run(adapters=["classification"], max_cases=3)
    assert set(second["summary"]) == {"basic", "classification"}
    assert [row for row in second["rows"] if row["adapter"] == "basic"] == first["rows"]


def test_other_settings_keep_the_old_results_beside(run: Any, tmp_path: Path) -> None:
    old = run()["signature"]
    new = run(seed=1)
    assert new["signature"] != old
    assert json.loads((tmp_path / "out" / f"results-{old}.json").read_text())["settings"]["seed"] == 0


@pytest.mark.parametrize(
    "changes",
    [{"templates": ["bob"]}, {"labels": ["disc"]}, {"complete": True}, {"components": "all"}, {"seed": 3}],
)
def test_whatever_changes_predictions_changes_the_signature(run: Any, changes: dict[str, Any]) -> None:
    assert run(max_cases=1)["signature"] != run(max_cases=1, **changes)["signature"]


def test_a_redrawn_template_changes_the_signature(run: Any, folder: Path) -> None:
    before = run(max_cases=1)["signature"]
    write_case(folder, "ann", 99)
    assert run(max_cases=1)["signature"] != before


def test_shots_are_drawn_where_none_are_told(run: Any) -> None:
    results = run(templates=None, shots=2, seed=4)
    assert results["shots"] == len(results["templates"]) == 2
    assert not {row["case"] for row in results["rows"]} & {*results["templates"]}


def test_a_label_that_no_template_holds_is_named_not_scored(run: Any) -> None:
    results = run(templates=[WITHOUT_BAR])
    assert results["labels_without_template"] == ["bar"]
    assert {row["label"] for row in results["rows"]} == {"disc"}


def test_a_damaged_case_is_named_and_the_others_are_done(
    run_with_report: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "images" / "cid.nii.gz").write_bytes(b"no image")
    results = run_with_report()
    assert list(results["failed"]) == ["cid"]
    assert {row["case"] for row in results["rows"]} == {"bob", "dan", "eve"}
    assert "cid failed" in (tmp_path / "out" / "report.html").read_text()
    write_case(folder, "cid", 2)
    assert run_with_report()["failed"] == {}


def test_no_working_case_is_an_error(run: Any, folder: Path) -> None:
    for name in NAMES[1:]:
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(FewshotError, match="No case"):
        run()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapters": ["contrastiv"]}, "contrastiv.*basic"),
        ({"adapters": []}, "no adapter"),
        ({"refine": "sam9"}, "sam9"),
        ({"templates": ["ana"]}, '"ana".*ann'),
        ({"templates": [*NAMES]}, "no labelled case besides"),
        ({"labels": ["disk"]}, '"disk".*disc'),
    ],
)
def test_wrong_names_are_refused_before_any_work(
    run: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(FewshotError, match=words):
        run(**changes)
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_write_into_one_folder(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(FewshotError, match="Another evaluation"):
        run()


def test_progress_ends_complete(run: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    run(adapters=["basic", "classification"], progress=lambda *report, **_: seen.append(report))
    assert seen[-1] == ("predict", 8, 8)
    done = [of[1] for of in seen if of[0] == "predict"]
    assert done == sorted(done)


@pytest.mark.parametrize("damage", ["another model", "no model"])
def test_a_model_file_that_is_not_the_runs_own_is_not_used(run: Any, tmp_path: Path, damage: str) -> None:
    run(max_cases=1)
    path = tmp_path / "out" / "models" / "basic.safetensors"
    own = path.read_bytes()
    if damage == "another model":
        run(max_cases=1, templates=["bob"], out=tmp_path / "other")
        path.write_bytes((tmp_path / "other" / "models" / "basic.safetensors").read_bytes())
    else:
        path.write_bytes(b"damaged")
    other = path.read_bytes()
    run()
    assert path.read_bytes() != other
    assert load_model(path).templates == ["ann"]
    assert len(path.read_bytes()) == len(own)
