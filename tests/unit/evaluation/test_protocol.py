"""The protocol from folder to report, with a random backbone: what is computed, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock

from fewshot.errors import FewshotError
from fewshot.evaluation.metrics import label_scores
from fewshot.features import FeatureBank
from fewshot.model import load_model
from tests.unit.evaluation.fakes import Copy
from tests.unit.evaluation.shapes import LABELS, NAMES, WITHOUT_BAR, write_case

ROW = {
    "seed", "case", "adapter", "refine", "label", "iou", "dice", "hd95_mm", "surface_mm", "distance_mm", "distance_px",
    "hit_10px", "false_positive_slices", "slices_without_label", "truth_ml", "predicted_ml", "volume_error", "ece",
    "seconds",
}  # fmt: skip


def test_every_other_case_method_and_label_has_a_row(run: Any, made_up: type[Copy], tmp_path: Path) -> None:
    results = run(adapters=["basic", "classification"], baselines=["copy"])
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert {key: results[key] for key in ("dataset", "shots", "templates", "backbone", "seeds")} == {
        "dataset": "shapes", "shots": 1, "templates": ["ann"], "backbone": "random-tiny", "seeds": [0],
    }  # fmt: skip
    found = [(row["case"], row["adapter"], row["label"]) for row in results["rows"]]
    assert found == [
        (case, method, label)
        for case in NAMES[1:]
        for method in ("basic", "classification", "copy")
        for label in LABELS
    ]
    assert all(row.keys() == ROW for row in results["rows"])
    assert list(results["summary"]) == list(results["overall"]) == ["basic", "classification", "copy"]
    assert results["summary"]["basic"]["bar"]["cases_with_label"] == 3
    assert results["journal"] is None
    assert {"python", "torch", "monai", "numpy", "scipy", "simpleitk", "fewshot"} <= results[
        "versions"
    ].keys()


def test_rows_are_the_scores_of_the_kept_predictions(run: Any, folder: Path, tmp_path: Path) -> None:
    """In planes of the thick slices, from files that any viewer opens."""
    rows = {(row["case"], row["label"]): row for row in run()["rows"]}
    for name in NAMES[1:]:
        truth = nib.load(folder / "labels" / f"{name}.nii.gz")
        predicted = nib.load(tmp_path / "out" / "seed-0" / "predictions" / "basic" / f"{name}.nii.gz")
        scores = label_scores(
            np.asarray(truth.dataobj),
            np.asarray(predicted.dataobj),
            LABELS,
            affine=truth.affine,
            slice_axis=2,
        )
        for label, of in scores.items():
            known = {key: value for key, value in vars(of).items() if key != "ece"}  # needs the probabilities
            assert {key: rows[name, label][key] for key in known} == known
            assert (rows[name, label]["ece"] is None) == (of.dice is None)
    assert rows[WITHOUT_BAR, "bar"]["dice"] is None
    assert rows[WITHOUT_BAR, "bar"]["slices_without_label"] == 6


def test_a_kept_model_is_the_one_that_predicted(run: Any, tmp_path: Path) -> None:
    results = run()
    model = load_model(tmp_path / "out" / "seed-0" / "models" / "basic.safetensors")
    assert (model.labels, model.templates) == (LABELS, ["ann"])
    (record,) = results["models"]
    assert (record["seed"], record["adapter"], record["digest"]) == (0, "basic", model.digest)
    assert record["spec"] == model.spec.to_dict()


def test_each_volume_is_read_once_and_featurised_once(
    run: Any, bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewshot.dataset import Dataset

    read: list[str] = []
    original = Dataset.volume

    def volume(dataset: Any, case: Any) -> Any:
        read.append(case.name)
        return original(dataset, case)

    monkeypatch.setattr(Dataset, "volume", volume)
    run(adapters=["basic", "classification"])
    assert sorted(read) == sorted(NAMES)
    assert len(list(bank.folder.glob("*.safetensors"))) == len(NAMES)


def test_the_time_of_a_new_study_holds_its_features_once(
    run: Any, made_up: type[Copy], tmp_path: Path
) -> None:
    timings = run(adapters=["basic", "classification"], baselines=["copy"])["timings"]
    assert len(timings) == 4 * 3
    for of in timings:
        stages = ("read", "slices", "features", "atlas", "adapter_seconds", "components", "refine_seconds")
        known = [of[stage] for stage in stages if of[stage] is not None]
        assert of["total"] == pytest.approx(sum(known), abs=2e-3)
        assert (of["features"] is None) == (of["adapter"] == "copy")
    first = {of["case"]: of["features"] for of in timings if of["adapter"] == "basic"}
    assert first == {of["case"]: of["features"] for of in timings if of["adapter"] == "classification"}
    again = run(out=tmp_path / "other")["timings"]
    assert {of["total"] for of in again} == {None}, "features from the bank: nobody knows what they took"


def test_confusion_counts_every_voxel_once_per_case(run: Any, made_up: type[Copy]) -> None:
    table = run(adapters=[], baselines=["copy"])["confusion"]["copy"]
    assert list(table) == list(table["disc"]) == ["background", *LABELS]
    assert sum(sum(row.values()) for row in table.values()) == 4 * 26 * 22 * 6
    assert table["disc"]["disc"] > table["disc"]["bar"] == 0


def test_numbers_can_be_traced_to_voxels(run: Any, folder: Path) -> None:
    results = run()
    assert set(results["digests"]) == set(NAMES[1:])
    assert set(results["runs"][0]["digests"]) == {"ann"}
    before = results["digests"]["bob"]
    write_case(folder, "bob", 50)
    assert run()["digests"]["bob"] != before


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_each_seed_draws_its_own_templates(run: Any, made_up: type[Copy], tmp_path: Path) -> None:
    results = run(adapters=["basic"], baselines=["copy"], templates=None, seeds=(0, 3, 4))
    assert results["seeds"] == [0, 3, 4]
    drawn = {of["seed"]: of["templates"] for of in results["runs"]}
    assert made_up.fitted == list(drawn.items())
    assert len({name for names in drawn.values() for name in names}) > 1
    for seed, names in drawn.items():
        predicted = {row["case"] for row in results["rows"] if row["seed"] == seed}
        assert predicted == set(NAMES) - set(names)
        for case in predicted:
            for method in ("basic", "copy"):
                assert (
                    tmp_path / "out" / f"seed-{seed}" / "predictions" / method / f"{case}.nii.gz"
                ).is_file()
    assert results["overall"]["copy"]["dice_seed_sd"] > 0


def test_one_seed_alone_gives_what_it_gives_among_others(run: Any, tmp_path: Path) -> None:
    together = run(templates=None, seeds=(0, 3), max_cases=2)
    alone = run(templates=None, seeds=(3,), max_cases=2, out=tmp_path / "alone")
    assert scores(alone) == [row for row in scores(together) if row["seed"] == 3]


def test_a_further_seed_adds_to_the_results(run: Any) -> None:
    first = run(seeds=(1,), max_cases=1)
    both = run(seeds=(0,), max_cases=1)
    assert [row for row in both["rows"] if row["seed"] == 1] == first["rows"]
    assert both["seeds"] == [0, 1]
    assert [of["seed"] for of in both["models"]] == [0, 1]


def test_told_templates_are_the_same_for_every_seed(run: Any, made_up: type[Copy]) -> None:
    run(adapters=[], baselines=["copy"], seeds=(0, 1), templates=["ann", "bob"])
    assert made_up.fitted == [(0, ["ann", "bob"]), (1, ["ann", "bob"])]


def test_shots_are_drawn_where_none_are_told(run: Any) -> None:
    results = run(templates=None, shots=2, seeds=(4,))
    assert results["shots"] == len(results["templates"]) == 2
    assert not {row["case"] for row in results["rows"]} & {*results["templates"]}


# --- templates with few labelled slices ------------------------------------------------------------------------------


def test_only_some_slices_of_a_template_are_known(run: Any, made_up: type[Copy]) -> None:
    results = run(adapters=["basic"], baselines=["copy"], template_slices=2, complete=True, max_cases=1)
    ((case, kept),) = results["runs"][0]["template_slices"].items()
    (template,) = made_up.seen
    assert case == template.volume.name == "ann"
    assert len(kept) == 2
    assert np.flatnonzero(template.labels.any(axis=(0, 1))).tolist() == kept
    assert not template.complete
    assert run(adapters=["basic"], max_cases=1)["signature"] != results["signature"]


def test_a_label_that_the_kept_slices_lack_is_not_tested(run: Any, folder: Path) -> None:
    path = folder / "labels" / "ann.nii.gz"
    image = nib.load(path)
    labels = np.array(image.dataobj)
    labels[:, :, :3][labels[:, :, :3] == LABELS["bar"]] = 0
    labels[:, :, 3:][labels[:, :, 3:] == LABELS["disc"]] = 0
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    results = run(template_slices=1, max_cases=1)
    assert len(results["labels_without_template"]) == 1
    assert len({row["label"] for row in results["rows"]}) == 1


# --- what a change of something does ---------------------------------------------------------------------------------


def test_more_cases_and_adapters_add_to_the_results(run: Any) -> None:
    first = run(max_cases=2)
    assert len(first["rows"]) == 2 * len(LABELS)
    second = run(adapters=["classification"], max_cases=3)
    assert set(second["summary"]) == {"basic", "classification"}
    assert [row for row in second["rows"] if row["adapter"] == "basic"] == first["rows"]


def test_other_settings_keep_the_old_results_beside(run: Any, tmp_path: Path) -> None:
    old = run(max_cases=1)
    new = run(max_cases=1, components="all")
    assert new["signature"] != old["signature"]
    assert json.loads((tmp_path / "out" / f"results-{old['signature']}.json").read_text()) == old


@pytest.mark.parametrize(
    "changes",
    [
        {"templates": ["bob"]},
        {"templates": None},
        {"labels": ["disc"]},
        {"complete": True},
        {"components": "all"},
        {"template_slices": 3},
    ],
)
def test_whatever_changes_predictions_changes_the_signature(run: Any, changes: dict[str, Any]) -> None:
    assert run(max_cases=1)["signature"] != run(max_cases=1, **changes)["signature"]


def test_a_redrawn_template_drops_what_was_made_with_it(
    run: Any, folder: Path, made_up: type[Copy], tmp_path: Path
) -> None:
    run(adapters=[], baselines=["copy"])
    write_case(folder, "ann", 99)
    made_up.fitted.clear()
    results = run(adapters=[], baselines=["copy"])
    assert made_up.fitted == [(0, ["ann"])]
    fresh = run(adapters=[], baselines=["copy"], out=tmp_path / "fresh")
    assert scores(results) == scores(fresh)


def test_a_changed_file_costs_only_its_rows(
    run: Any, folder: Path, made_up: type[Copy], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(adapters=[], baselines=["copy"])
    write_case(folder, "bob", 77)
    predicted: list[str] = []
    original = made_up.predict
    monkeypatch.setattr(
        made_up,
        "predict",
        lambda self, volume, **rest: predicted.append(volume.name) or original(self, volume, **rest),
    )
    after = run(adapters=[], baselines=["copy"])
    assert predicted == ["bob"]
    others = [[row for row in of["rows"] if row["case"] != "bob"] for of in (before, after)]
    assert others[0] == others[1]


def test_other_weights_of_a_baseline_drop_its_rows(
    run: Any, made_up: type[Copy], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(baselines=["copy"], max_cases=1)
    run(baselines=["copy"], max_cases=1)
    assert len(made_up.fitted) == 1
    monkeypatch.setattr(made_up, "weights", "second")
    results = run(baselines=["copy"], max_cases=1)
    assert len(made_up.fitted) == 2
    assert {of["adapter"]: of["provenance"] for of in results["models"]} == {
        "basic": {},
        "copy": {"weights": "second"},
    }


# --- what goes wrong -------------------------------------------------------------------------------------------------


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


def test_a_method_that_fails_on_a_case_is_named_and_the_others_are_done(
    run: Any, made_up: type[Copy]
) -> None:
    results = run(adapters=[], baselines=["picky", "copy"])
    assert results["failed"] == {"cid": "picky: RuntimeError: ITK ERROR: too few points"}
    done = {(row["adapter"], row["case"]) for row in results["rows"]}
    assert done == {("copy", name) for name in NAMES[1:]} | {
        ("picky", name) for name in ("bob", "dan", "eve")
    }


@pytest.mark.parametrize(("name", "reason"), [("broken", "Its weights are not here"), ("absent", "package")])
def test_a_baseline_that_cannot_be_fitted_is_named_and_the_others_are_done(
    run: Any, made_up: type[Copy], name: str, reason: str
) -> None:
    seen: list[tuple[str, int, int]] = []
    results = run(baselines=[name], seeds=(0, 1), progress=lambda *report, **_: seen.append(report))
    assert list(results["failed"]) == [f"seed-0 {name}", f"seed-1 {name}"]
    assert reason in results["failed"][f"seed-0 {name}"]
    assert list(results["summary"]) == ["basic"]
    assert ("predict", 16, 16) in seen


def test_a_damaged_case_is_never_drawn(run: Any, folder: Path) -> None:
    ((drawn,),) = (of["templates"] for of in run(templates=None)["runs"])
    (folder / "images" / f"{drawn}.nii.gz").write_bytes(b"no image")
    results = run(templates=None)
    assert results["templates"] != [drawn]
    assert list(results["failed"]) == [drawn]


def test_a_damaged_template_that_was_told_is_an_error(run: Any, folder: Path) -> None:
    (folder / "images" / "ann.nii.gz").write_bytes(b"no image")
    with pytest.raises(FewshotError, match="No case .* could be evaluated: .*ann"):
        run()


def test_no_working_case_is_an_error(run: Any, folder: Path) -> None:
    for name in NAMES[1:]:
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(FewshotError, match="No case"):
        run()


def test_no_working_method_is_an_error(run: Any, made_up: type[Copy]) -> None:
    with pytest.raises(FewshotError, match=r"No case.*weights are not here"):
        run(adapters=[], baselines=["broken"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapters": ["contrastiv"]}, "contrastiv.*basic"),
        ({"baselines": ["magic"]}, "no baseline magic.*registration"),
        ({"adapters": []}, "no adapter or baseline"),
        ({"refiners": ["sam9"]}, "sam9"),
        ({"refiners": []}, "no refinement"),
        ({"components": "some"}, "some"),
        ({"template_slices": 0}, "at least 1"),
        ({"seeds": ()}, "Seeds"),
        ({"seeds": (-1,)}, "-1"),
        ({"templates": ["ana"]}, '"ana".*ann'),
        ({"templates": [*NAMES]}, "no labelled case besides"),
        ({"labels": ["disk"]}, '"disk".*disc'),
        ({"options": {"basic": {"treshold": 0.4}}}, "treshold"),
        ({"baselines": ["copy"], "options": {"copy": {"shift": 0}}}, "Option shift of baseline copy"),
        ({"options": {"copy": {"shift": 3}}}, "copy, which is not evaluated"),
    ],
)
def test_wrong_use_is_refused_before_any_work(
    run: Any, made_up: type[Copy], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(FewshotError, match=words):
        run(**changes)
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_write_into_one_folder(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(FewshotError, match="Another evaluation"):
        run()


@pytest.mark.parametrize("again", [False, True])
def test_progress_is_true_and_ends_complete(run: Any, made_up: type[Copy], again: bool) -> None:
    arguments = {"adapters": ["basic"], "baselines": ["copy"], "seeds": (0, 1)}
    seen: list[tuple[str, float, int]] = []
    if again:
        run(**arguments, max_cases=2)
    run(**arguments, progress=lambda *report, **_: seen.append(report))
    for stage, total in (("features", 2 * 5), ("train", 2 * 2), ("predict", 2 * 2 * 4)):
        done = [of[1] for of in seen if of[0] == stage]
        assert {of[2] for of in seen if of[0] == stage} == {total}
        assert done == sorted(done)
        assert done[-1] == total


def scores(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows without what takes another time every time."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]
