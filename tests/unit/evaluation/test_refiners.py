"""Refinements in an evaluation: their names, what is computed once, what is computed again, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.evaluation import methods, metrics
from fewshot.evaluation.refiners import Refinement, in_order
from fewshot.prediction import Prediction
from fewshot.refine import choice
from fewshot.refine.sam import at_hand
from fewshot.volumes import SliceSpec, read_volume
from tests.unit.evaluation import fake_refiners
from tests.unit.evaluation.fake_refiners import Painter, Picky
from tests.unit.evaluation.fakes import Copy
from tests.unit.evaluation.shapes import LABELS, NAMES
from tests.unit.evaluation.test_protocol import scores

COPY: dict[str, Any] = {"adapters": [], "baselines": ["copy"]}


@pytest.fixture(autouse=True)
def made_up_refiners(made_up: type[Copy], monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up refiners can be asked for; nothing is written down yet.

    Surfaces are not measured: to import what measures them takes longer than all else.
    """
    monkeypatch.setattr(metrics, "surface_distances", lambda *_, **__: (2.0, 1.0))
    for name, entry in fake_refiners.REFINERS.items():
        monkeypatch.setitem(choice.REFINERS, name, entry)
    monkeypatch.setattr(Painter, "log", [])
    monkeypatch.setattr(Painter, "planes", [])


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that the baseline predicts from here on."""
    seen: list[str] = []
    original = methods.BaselineMethod.predict
    monkeypatch.setattr(
        methods.BaselineMethod,
        "predict",
        lambda self, volume, **rest: seen.append(volume.name) or original(self, volume, **rest),
    )
    return seen


def test_refinements_share_one_prediction(run: Any, predicted: list[str], tmp_path: Path) -> None:
    results = run(adapters=["basic"], baselines=["copy"], refiners=("none", "eraser"))
    assert sorted(predicted) == sorted(NAMES[1:])
    assert list(results["summary"]) == ["basic", "basic+eraser", "copy", "copy+eraser"]
    assert results["overall"]["copy"]["dice_mean"] > 0.3
    assert results["overall"]["copy+eraser"]["dice_mean"] == 0
    assert (tmp_path / "out" / "seed-0" / "predictions" / "copy+eraser" / "bob.nii.gz").is_file()


def test_each_strategy_is_a_refinement_of_its_own(run: Any, predicted: list[str], tmp_path: Path) -> None:
    results = run(
        **COPY, refiners=("none", "eraser", "sam"), prompts=["box", "random"], seeds=(0, 1), max_cases=2
    )
    names = ["none", "sam:box", "sam:random", "eraser"]
    assert list(results["refiners"]) == names
    assert list(results["summary"]) == ["copy", *[f"copy+{name}" for name in names[1:]]]
    assert {row["refine"] for row in results["rows"]} == {*names}
    assert len(predicted) == 2 * 2
    case = results["rows"][0]["case"]
    for folder in ("copy", "copy+sam-box", "copy+sam-random", "copy+eraser"):
        assert (tmp_path / "out" / "seed-1" / "predictions" / folder / f"{case}.nii.gz").is_file()
    dice = {name: of["dice_mean"] for name, of in results["overall"].items()}
    assert dice["copy"] == dice["copy+sam:random"]
    assert dice["copy+sam:box"] != dice["copy"]


def test_a_refiner_is_made_once_and_told_the_templates_of_every_seed(run: Any) -> None:
    results = run(**COPY, refiners=("sam",), prompts=["box", "random"], templates=None, seeds=(0, 3))
    assert Painter.log.count("created") == 1
    told = [entry for entry in Painter.log if isinstance(entry[1], list)]
    drawn = [of["templates"] for of in results["runs"]]
    assert told == [(name, templates) for templates in drawn for name in ("box", "random")]
    refined = {entry[2] for entry in Painter.log if len(entry) == 3}
    assert refined == {0, 3}, "with the seed of the round"


def test_slices_are_cut_as_the_templates_are(run: Any) -> None:
    """Also for a baseline, which does not say how."""
    results = run(adapters=["basic"], baselines=["copy"], refiners=("sam",), max_cases=1)
    spec = results["models"][0]["spec"]
    assert Painter.planes == 2 * [(spec["plane"], spec["window"])]


def test_without_named_prompts_a_refiner_has_its_own_name_and_settings(run: Any) -> None:
    results = run(**COPY, refiners=("sam",), options={"sam": {"prompts": "box", "points": 3}}, max_cases=1)
    assert list(results["summary"]) == ["copy+sam"]
    assert results["refiners"] == {
        "sam": {"options": {"prompts": "box", "points": 3}, "sam": "painted", "digest": "first"}
    }
    assert results["options"] == {"copy": {}}


def test_auto_is_called_what_it_chooses(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "choose_sam", lambda *_, **__: "sam_vit_b")
    results = run(**COPY, refiners=("auto", "sam"), max_cases=1)
    assert list(results["summary"]) == ["copy+sam"]


def test_timings_say_what_the_refiner_did(run: Any) -> None:
    results = run(**COPY, refiners=("none", "sam"), prompts=["kmeans"], max_cases=1)
    plain, refined = results["timings"]
    assert plain["refinement"] is None
    assert refined["refine"] == "sam:kmeans"
    assert refined["refinement"] == {
        "masks": 4, "taken": 3, "encoded": 0, "notes": ["random weights", "1 of 4 masks were not taken"],
    }  # fmt: skip
    assert refined["refine_seconds"] > 0
    assert refined["total"] >= refined["adapter_seconds"] + refined["refine_seconds"]


def test_nothing_found_is_nothing_to_refine(folder: Path) -> None:
    volume = read_volume(folder / "images" / "bob.nii.gz")
    empty = np.zeros(volume.shape, np.uint8)
    found = Prediction(empty, dict(LABELS), {}, {}, {"total": 1.0}, {}, [])
    refinement = Refinement("sam", Painter(Painter.Options()))
    assert refinement.apply(volume, found, spec=SliceSpec(), seed=0) == (found, None)
    assert Painter.log == ["created"]


# --- what a change of something does ---------------------------------------------------------------------------------


def test_a_second_run_computes_nothing(run: Any, predicted: list[str]) -> None:
    arguments = {**COPY, "refiners": ("none", "sam"), "prompts": ["box"]}
    first = run(**arguments)
    predicted.clear()
    Painter.log.clear()
    assert run(**arguments)["rows"] == first["rows"]
    assert predicted == []
    assert Painter.log == ["created"], "neither told the templates nor used"


def test_a_further_strategy_adds_rows(run: Any) -> None:
    first = run(**COPY, refiners=("none", "sam"), prompts=["box"])
    Painter.log.clear()
    both = run(**COPY, refiners=("sam",), prompts=["kmeans", "box"])
    assert {entry[0] for entry in Painter.log if len(entry) == 3} == {"kmeans"}
    assert set(both["refiners"]) == {"none", "sam:box", "sam:kmeans"}
    assert [row for row in both["rows"] if row["refine"] != "sam:kmeans"] == first["rows"]


@pytest.mark.parametrize("change", ["weights", "options"])
def test_a_changed_refiner_costs_only_its_rows(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    arguments: dict[str, Any] = {**COPY, "refiners": ("none", "eraser", "sam"), "prompts": ["box"]}
    before = run(**arguments)
    Painter.log.clear()
    if change == "weights":
        monkeypatch.setattr(Painter, "weights", "second")
    else:
        arguments["options"] = {"sam": {"points": 7}}
    after = run(**arguments)
    assert sorted(entry[1] for entry in Painter.log if len(entry) == 3) == sorted(NAMES[1:])
    assert after["refiners"]["sam:box"] != before["refiners"]["sam:box"]
    kept = [
        [(row["case"], row["refine"], row["seconds"]) for row in of["rows"] if row["refine"] != "sam:box"]
        for of in (before, after)
    ]
    assert kept[0] == kept[1]
    assert len(after["rows"]) == len(before["rows"]) == 4 * 3 * len(LABELS)
    assert scores(after) == scores(run(**arguments, out=tmp_path / "fresh"))


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_refiner_that_fails_on_a_case_is_named_and_the_others_are_done(run: Any) -> None:
    results = run(**COPY, refiners=("picky", "none", "eraser"))
    assert results["failed"] == {"cid": "copy+picky: ValueError: no edges"}
    done = {(row["refine"], row["case"]) for row in results["rows"]}
    assert {refine for refine, case in done if case == "cid"} == {"none", "eraser"}
    assert len(done) == 3 * 4 - 1


def test_a_refiner_that_cannot_take_the_templates_is_named_and_the_others_are_done(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Picky, "forgetful", True)
    seen: list[tuple[str, float, int]] = []
    results = run(**COPY, refiners=("none", "picky"), progress=lambda *report, **_: seen.append(report))
    assert results["failed"] == {"seed-0 picky": "RuntimeError: CUDA out of memory"}
    assert {row["refine"] for row in results["rows"]} == {"none"}
    assert [of for of in seen if of[0] == "predict"][-1] == ("predict", 8, 8)


@pytest.mark.parametrize("refiners", [("none", "sam"), ("sam", "eraser")])
def test_progress_is_true_and_ends_complete(run: Any, refiners: tuple[str, str]) -> None:
    seen: list[tuple[str, float, int]] = []
    run(**COPY, refiners=refiners, max_cases=2, progress=lambda *report, **_: seen.append(report))
    done = [of[1] for of in seen if of[0] == "predict"]
    assert done == sorted(done)
    assert done[-1] == 2 * 2
    assert any(done_ % 1 for done_ in done)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refiners": ["sam9"]}, "no refinement sam9.*walker"),
        ({"refiners": []}, "no refinement"),
        ({"refiners": ["sam"], "prompts": ["boxes"]}, "no prompt strategy boxes.*kmeans"),
        ({"refiners": ["sam"], "prompts": []}, "no prompt strategy"),
        ({"refiners": ["none", "eraser"], "prompts": ["box"]}, "Prompts box .* none, eraser takes none"),
        ({"refiners": ["sam"], "options": {"sam": {"pionts": 3}}}, "sam has no option pionts"),
        ({"refiners": ["sam"], "options": {"sam": {"points": 0}}}, "Option points of refinement sam"),
        ({"refiners": ["none"], "options": {"sam": {"points": 3}}}, "sam, which is not evaluated"),
    ],
)
def test_wrong_use_is_refused_before_any_work(
    run: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(FewshotError, match=words):
        run(**changes)
    assert not (tmp_path / "out").exists()


def test_missing_weights_stop_the_run_before_any_work(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(
        choice.REFINERS, "sam", choice.Entry("fewshot.refine.sam_refiner:SamRefiner", "SAM", "sam")
    )
    monkeypatch.setattr(at_hand, "choose_sam", lambda *_, **__: None)
    with pytest.raises(FewshotError, match="needs weights, and none are on this machine"):
        run(refiners=["none", "sam"])
    with pytest.raises(FewshotError, match="no/such.pth"):
        run(refiners=["none", "sam"], sam="no/such.pth")
    assert not (tmp_path / "out").exists()


def test_refinements_are_listed_as_registered_and_strategies_as_asked_for() -> None:
    assert in_order(["sam2", "gone", "sam:kmeans", "walker", "sam:box", "none"]) == [
        "none", "walker", "sam:kmeans", "sam:box", "sam2", "gone",
    ]  # fmt: skip
