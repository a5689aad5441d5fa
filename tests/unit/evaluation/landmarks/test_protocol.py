"""The protocol from folder to results: what is computed, kept, continued and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fewshot.errors import FewshotError
from fewshot.evaluation.landmarks import methods, summary_table
from fewshot.evaluation.landmarks import work as working
from fewshot.landmarks import load_landmark_model
from fewshot.landmarks.markups import read_markups
from fewshot.phantoms import write_studies
from tests.unit.evaluation.landmarks.heads import BEADS, NAMES, WITHOUT_CROWN, places
from tests.unit.evaluation.page import Page

ROW = {
    "seed", "case", "adapter", "view", "landmark", "present", "found", "confidence", "error_mm", "error_px", "guess_mm",
    "hit_10px", "success_2mm", "success_4mm", "success_10mm", "truth", "point", "seconds",
}  # fmt: skip


def scores(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows but for seconds."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]


def test_every_case_method_and_landmark_has_a_row(run: Any, tmp_path: Path) -> None:
    results = run(baselines=["registration"])
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["task"], results["dataset"], results["templates"]) == ("landmarks", "heads", ["ann"])
    whole = [row for row in results["rows"] if row["view"] == "whole"]
    assert [(row["case"], row["adapter"], row["landmark"]) for row in whole] == [
        (case, method, name) for case in NAMES[1:] for method in ("basic", "registration") for name in BEADS
    ]
    assert all(row.keys() == ROW for row in results["rows"])
    assert [row["landmark"] for row in whole if not row["present"]] == ["crown", "crown"]
    assert {row["case"] for row in whole if not row["present"]} == {WITHOUT_CROWN}
    assert list(results["overall"]) == ["basic", "registration"]
    assert results["overall"]["basic"]["landmarks"] == 8
    assert results["journal"] is None
    assert "crown" in summary_table(results)


def test_rows_are_the_distances_of_the_kept_points(run: Any, tmp_path: Path) -> None:
    rows = [row for row in run(baselines=["registration"])["rows"] if row["view"] == "whole"]
    for row in rows:
        path = tmp_path / "out" / "seed-0" / "predictions" / row["adapter"] / f"{row['case']}.mrk.json"
        marks, missing = read_markups(path)
        assert row["found"] == (row["landmark"] in marks) != (row["landmark"] in missing)
        if row["present"] and row["found"]:
            truth = places(NAMES.index(row["case"]))[row["landmark"]]
            wrong = sum((a - b) ** 2 for a, b in zip(marks[row["landmark"]].point, truth, strict=True)) ** 0.5
            assert row["error_mm"] == pytest.approx(wrong, abs=1e-3)
            assert row["error_px"] == pytest.approx(wrong / 2, abs=1e-3)
    assert load_landmark_model(tmp_path / "out/seed-0/models/basic.safetensors").names == [*BEADS]


def test_registration_finds_beads_that_moved_and_misses_what_was_cut_away(run: Any) -> None:
    of = run(adapters=[], baselines=["registration"])["overall"]["registration"]
    assert of["error_mm_mean"] < 3
    assert of["crops_hit_10px_mean"] == 1
    assert of["absent"] > 6
    assert of["false_detections"] < of["absent"] / 2


def test_halves_judge_what_they_keep_and_what_they_lost(run: Any) -> None:
    rows = [row for row in run()["rows"] if row["case"] == "bob" and row["view"] != "whole"]
    told = {(row["view"], row["landmark"]): row["present"] for row in rows}
    assert told == {
        ("first-half", "nose"): False, ("first-half", "chin"): True, ("first-half", "crown"): False,
        ("second-half", "nose"): True, ("second-half", "chin"): False, ("second-half", "crown"): True,
    }  # fmt: skip


def test_crops_may_be_left_out_and_added_later(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without = run(crops=False)
    assert {row["view"] for row in without["rows"]} == {"whole"}
    assert list(without["views"]) == ["whole"]
    found: list[str] = []
    find = methods.ModelMethod.find
    monkeypatch.setattr(
        methods.ModelMethod,
        "find",
        lambda self, volume, **of: found.append(volume.name) or find(self, volume, **of),
    )
    both = run()
    assert scores(without) == [row for row in scores(both) if row["view"] == "whole"]
    assert len(found) == 2 * len(NAMES[1:])
    assert all("half" in name for name in found)


def test_a_run_that_was_stopped_goes_on(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = run(out=tmp_path / "at once", baselines=["registration"], seeds=(0, 1), templates=None)
    seen = 0

    def stop(stage: str, done: float, total: float, **_: float) -> None:
        nonlocal seen
        seen += stage == "predict" and done == int(done)
        if seen > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(baselines=["registration"], seeds=(0, 1), templates=None, progress=stop)
    kept = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert 0 < len(kept) < len(whole["rows"])
    fitted: list[int] = []
    fit = methods.fit_landmarks
    monkeypatch.setattr(
        methods, "fit_landmarks", lambda *given, **of: fitted.append(of["seed"]) or fit(*given, **of)
    )
    again = run(baselines=["registration"], seeds=(0, 1), templates=None)
    assert scores(again) == scores(whole)
    assert fitted == [1]  # the first seed's model was read from its file
    assert again["failed"] == {}


def test_a_changed_file_is_searched_again(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(crops=False)
    path = folder / "landmarks" / "bob.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nose": None}))
    read: list[str] = []
    score = working.landmark_scores
    monkeypatch.setattr(
        working, "landmark_scores", lambda view, *of: read.append(view.volume.name) or score(view, *of)
    )
    rows = run(crops=False)["rows"]
    assert read == ["bob"]
    assert [row["present"] for row in rows if (row["case"], row["landmark"]) == ("bob", "nose")] == [False]


def test_one_broken_case_leaves_the_others(run: Any, folder: Path) -> None:
    (folder / "images" / "bob.nii.gz").write_bytes(b"nothing")
    (folder / "landmarks" / "cid.json").write_text('{"nose": [900, 0, 0]}')
    results = run()
    assert {row["case"] for row in results["rows"]} == {"dan"}
    assert results["failed"].keys() == {"bob", "cid"}
    assert "nose" in results["failed"]["cid"]
    assert "bob.nii.gz" in results["failed"]["bob"]


def test_a_method_that_fails_on_a_case_leaves_the_others(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = methods.RegistrationMethod.find

    def picky(self: Any, volume: Any, **of: Any) -> Any:
        if volume.name == "cid":
            raise RuntimeError("ITK ERROR: too few points")
        return find(self, volume, **of)

    monkeypatch.setattr(methods.RegistrationMethod, "find", picky)
    results = run(baselines=["registration"], crops=False)
    told = {(row["case"], row["adapter"]) for row in results["rows"]}
    assert told == {(case, "basic") for case in NAMES[1:]} | {
        ("bob", "registration"),
        ("dan", "registration"),
    }
    assert results["failed"] == {"cid": "registration: RuntimeError: ITK ERROR: too few points"}


def test_a_method_that_cannot_be_fitted_leaves_the_others(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise FewshotError("It needs two templates.")

    monkeypatch.setattr(methods.RegistrationMethod, "fit", never)
    results = run(baselines=["registration"], crops=False)
    assert {row["adapter"] for row in results["rows"]} == {"basic"}
    assert results["failed"] == {"seed-0 registration": "It needs two templates."}


def test_landmarks_that_no_template_marks_are_named(run: Any) -> None:
    results = run(templates=[WITHOUT_CROWN])
    assert results["labels_without_template"] == ["crown"]
    assert "crown" not in results["summary"]["basic"]


def test_drawn_templates_hold_all_landmarks_and_differ_between_seeds(run: Any) -> None:
    results = run(templates=None, seeds=range(5), crops=False, max_cases=1)
    drawn = {run["templates"][0] for run in results["runs"]}
    assert WITHOUT_CROWN not in drawn
    assert len(drawn) > 1
    several = run(templates=None, shots=4 - 1, crops=False)
    assert sorted(several["runs"][0]["templates"]) == [*NAMES[:3]]


def test_a_choice_of_landmarks(run: Any) -> None:
    results = run(landmarks=["chin"], crops=False)
    assert {row["landmark"] for row in results["rows"]} == {"chin"}


def test_centres_of_labels_are_landmarks(run: Any, tmp_path: Path) -> None:
    write_studies(tmp_path / "phantoms", 3, shape=(40, 34, 16))
    results = run(
        folder=tmp_path / "phantoms", landmarks=["liver", "kidney_left"], templates=["phantom_00"], adapters=[],
        baselines=["registration"],
    )  # fmt: skip
    assert set(results["summary"]["registration"]) == {"liver", "kidney_left"}
    assert results["overall"]["registration"]["error_mm_mean"] < 40


def test_pictures_without_scale_are_measured_in_pixels(run_with_report: Any, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    rng = np.random.default_rng(5)
    texture = gaussian_filter(rng.standard_normal((80, 60)), 3)
    for part in ("images", "landmarks"):
        (folder / part).mkdir(parents=True)
    for name, (down, right) in {"a": (0, 0), "b": (4, -3), "c": (-2, 3)}.items():
        rows, cols = np.indices((80, 60))
        film = 120 + 400 * texture * (((rows - 40) / 30) ** 2 + ((cols - 30) / 22) ** 2 < 1)
        film = np.roll(film, (down, right), (0, 1)).clip(0, 255).astype(np.uint8)
        Image.fromarray(film).save(folder / "images" / f"{name}.png")
        points = {"high": [30 + right, 20 + down], "low": [28 + right, 60 + down]}
        (folder / "landmarks" / f"{name}.json").write_text(json.dumps(points))
    (folder / "dataset.json").write_text(json.dumps({"landmarks": ["high", "low"], "modality": "XR"}))
    results = run_with_report(folder=folder, templates=["a"], adapters=[], baselines=["registration"])
    whole = [row for row in results["rows"] if row["view"] == "whole"]
    assert len(whole) == 4
    assert all(row["error_mm"] is None and row["success_10mm"] is None for row in whole)
    assert all(row["error_px"] < 4 and row["hit_10px"] for row in whole)
    assert {row["view"] for row in results["rows"] if not row["present"]} == {"first-half", "second-half"}
    page = Page(tmp_path / "out" / "report.html")
    assert "px" in " ".join(page.said("of"))
    assert not any("mm" in header for header in page.tables["overall"][0][0])


def test_results_of_labels_are_left_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    before = json.dumps({"signature": "1", "rows": [], "task": "segmentation"})
    (tmp_path / "out" / "results.json").write_text(before)
    with pytest.raises(FewshotError, match="segmentation, not of landmarks: give another folder"):
        run()
    assert (tmp_path / "out" / "results.json").read_text() == before


def test_other_settings_begin_anew_and_keep_the_old_results(run: Any, tmp_path: Path) -> None:
    old = run(crops=False)
    new = run(crops=False, templates=["bob"])
    assert {row["case"] for row in new["rows"]} == {"ann", "cid", "dan"}
    kept = json.loads((tmp_path / "out" / f"results-{old['signature']}.json").read_text())
    assert kept["rows"] == old["rows"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"adapters": ["magic"]}, "no adapter magic for landmarks"),
        ({"baselines": ["unet"]}, "no baseline unet for landmarks: choose among registration"),
        ({"adapters": []}, "no adapter or baseline"),
        (
            {"options": {"registration": {"steps": 3}}, "baselines": ["registration"]},
            "registration, which has none",
        ),
        ({"landmarks": ["ear"]}, "ear"),
        ({"templates": ["eve"]}, "eve"),
        ({"templates": None, "shots": 5}, "5 templates cannot be drawn"),
        ({"templates": [*NAMES]}, "besides its 4 templates"),
        ({"seeds": ()}, "Seeds are whole numbers"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    run: Any, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(FewshotError, match=match):
        run(**changes)
    assert not (tmp_path / "out").exists()


def test_nothing_that_worked_is_an_error(run: Any, folder: Path) -> None:
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    for name in NAMES:
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"nothing")
    with pytest.raises(FewshotError, match="No case"):
        run()
