"""Rows survive exactly as long as what they depend on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fewshot.errors import FewshotError
from fewshot.evaluation.store import ResultStore, Unit, file_stamp, write_text
from tests.unit.evaluation.test_summary import row

RUN = {
    "seed": 0,
    "templates": ["t"],
    "template_slices": None,
    "labels_without_template": [],
    "digests": {"t": "x"},
}
MODEL = {"seed": 0, "adapter": "basic", "digest": "1"}
COMMON = ("seed", "case", "adapter", "refine")


def unit(case: str, **changes: Any) -> Unit:
    """What a row of a case belongs to."""
    of = {"seed": 0, "case": case, "adapter": "basic", "refine": "none"} | changes
    return of["seed"], of["case"], of["adapter"], of["refine"]


def open_store(folder: Path, **changes: Any) -> ResultStore:
    """A store with one adapter and two cases."""
    arguments: dict[str, Any] = {
        "about": {"dataset": "set"},
        "settings": {"seed": 0},
        "options": {"basic": {}},
        "stamps": {"one": "1", "two": "2"},
        "names": ["a"],
        "versions": {"numpy": "1"},
    }
    return ResultStore(folder, **(arguments | changes))


def add(store: ResultStore, case: str, dice: float, **changes: Any) -> None:
    """Rows of one case."""
    values = {key: value for key, value in row(case, "a", dice).items() if key not in COMMON}
    voxels = {"background": {"background": 5, "a": 1}, "a": {"a": 2}}
    store.add(
        unit(case, **changes), [values], {"read": 0.1, "features": None}, voxels, {case: {"image": case}}
    )


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with the rows of two cases, never closed: as a process leaves it that was killed."""
    store = open_store(tmp_path)
    store.begin(RUN)
    store.note("two", ["resampled"])
    store.add_model(MODEL)
    add(store, "two", 0.7)
    add(store, "one", 0.5)
    return tmp_path


def rows(store: ResultStore) -> list[tuple[str, float]]:
    return [(of["case"], of["dice"]) for of in store.rows]


def test_results_hold_what_the_contract_names(filled: Path) -> None:
    results = open_store(filled).write()
    assert results == json.loads((filled / "results.json").read_text())
    assert (results["dataset"], results["seeds"], results["runs"]) == ("set", [0], [RUN])
    assert [of["case"] for of in results["rows"]] == ["one", "two"]
    assert results["summary"]["basic"]["a"]["dice_mean"] == pytest.approx(0.6)
    assert results["overall"]["basic"]["dice_mean"] == pytest.approx(0.6)
    assert results["confusion"] == {
        "basic": {"background": {"background": 10, "a": 2}, "a": {"background": 0, "a": 4}}
    }
    assert results["timings"][0] == dict(zip(COMMON, unit("one"), strict=True)) | {
        "read": 0.1,
        "features": None,
    }
    assert results["models"] == [MODEL]
    assert results["notes"] == {"two": ["resampled"]}
    assert results["digests"] == {"one": {"image": "one"}, "two": {"image": "two"}}
    assert [entry.name for entry in filled.iterdir()] == ["results.json"], "the journal is gathered"


def test_the_same_settings_go_on(filled: Path) -> None:
    store = open_store(filled)
    assert store.has(unit("one"))
    assert store.has(unit("two"))
    assert not store.has(unit("one", seed=1))
    assert not store.has(unit("one", refine="walker"))
    assert store.model(0, "basic") == MODEL


@pytest.mark.parametrize("cut", [2, 20, 200, 400])
def test_a_line_that_was_not_finished_is_left_out(filled: Path, cut: int) -> None:
    """A kill may come within a write; what was written before stays."""
    (journal,) = filled.glob(".results-*.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-cut])
    assert rows(open_store(filled)) == [("two", 0.7)]


def test_a_kill_between_two_writes_neither_doubles_nor_revives_rows(filled: Path) -> None:
    """The old journal may be left beside the results that gathered it."""
    (journal,) = filled.glob(".results-*.jsonl")
    left = journal.read_bytes()
    open_store(filled, options={"basic": {"threshold": 0.4}})
    journal.write_bytes(left)
    assert open_store(filled, options={"basic": {"threshold": 0.4}}).rows == []


def test_other_settings_start_anew_and_move_the_old_results_aside(filled: Path) -> None:
    store = open_store(filled, settings={"seed": 1})
    assert store.rows == []
    (aside,) = filled.glob("results-*.json")
    old = json.loads(aside.read_text())
    assert [of["case"] for of in old["rows"]] == ["two", "one"]
    assert old["summary"]["basic"]["a"]["dice_mean"] == pytest.approx(0.6)
    assert store.write()["rows"] == []


def test_a_changed_file_is_predicted_again(filled: Path) -> None:
    store = open_store(filled, stamps={"one": "changed", "two": "2"})
    assert rows(store) == [("two", 0.7)]
    assert [of["case"] for of in store.timings] == [of["case"] for of in store.confusions] == ["two"]
    assert list(store.digests) == list(store.notes) == ["two"]


def test_other_options_drop_the_rows_of_that_adapter(filled: Path) -> None:
    store = open_store(filled, options={"basic": {"threshold": 0.4}})
    assert store.rows == store.timings == store.confusions == []
    assert store.model(0, "basic") is None


def test_another_refinement_drops_only_its_rows(filled: Path) -> None:
    walker = {"options": {"beta": 90.0}}
    store = open_store(filled, refiners={"walker": walker})
    assert len(store.rows) == 2, "those without refinement stay"
    store.begin(RUN)
    add(store, "one", 0.9, refine="walker")
    again = open_store(filled, refiners={"walker": walker, "none": {}})
    assert len(again.rows) == 3
    assert list(again.write()["refiners"]) == ["none", "walker"]
    changed = open_store(filled, refiners={"walker": {"options": {"beta": 130.0}}})
    assert rows(changed) == [("one", 0.5), ("two", 0.7)]
    assert not changed.has(unit("one", refine="walker"))
    assert changed.write()["refiners"]["walker"] == {"options": {"beta": 130.0}}


def test_results_from_before_refinements_were_named_keep_their_rows(filled: Path) -> None:
    open_store(filled).write()
    results = json.loads((filled / "results.json").read_text())
    del results["refiners"]
    (filled / "results.json").write_text(json.dumps(results))
    assert len(open_store(filled).rows) == 2


def test_other_templates_drop_the_rows_of_that_seed(filled: Path) -> None:
    store = open_store(filled)
    store.begin(RUN | {"seed": 1})
    add(store, "one", 0.9, seed=1)
    store.begin(RUN | {"digests": {"t": "redrawn"}})
    assert rows(store) == [("one", 0.9)]
    assert store.model(0, "basic") is None
    assert not store.has(unit("one"))
    again = open_store(filled)
    assert rows(again) == [("one", 0.9)]
    assert again.write()["runs"][0]["digests"] == {"t": "redrawn"}


def test_the_same_templates_drop_nothing(filled: Path) -> None:
    store = open_store(filled)
    store.begin(RUN)
    assert len(store.rows) == 2


def test_fewer_cases_or_other_adapters_take_nothing_away(filled: Path) -> None:
    store = open_store(filled, options={"contrastive": {}}, stamps={"two": "2"})
    assert store.has(unit("one"))
    assert not store.has(unit("one", adapter="contrastive"))


def test_rows_are_in_order_of_seed_case_and_method(filled: Path) -> None:
    store = open_store(filled, options={"basic": {}, "copy": {}})
    store.begin(RUN | {"seed": 1})
    add(store, "one", 0.1, seed=1)
    add(store, "one", 0.2, adapter="copy")
    results = store.write()
    found = [(of["seed"], of["case"], of["adapter"]) for of in results["rows"]]
    assert found == [(0, "one", "basic"), (0, "one", "copy"), (0, "two", "basic"), (1, "one", "basic")]
    assert list(results["summary"]) == ["basic", "copy"]


def test_versions_of_all_runs_are_told(filled: Path) -> None:
    assert open_store(filled, versions={"numpy": "1"}).versions == {"numpy": "1"}
    assert open_store(filled, versions={"numpy": "2"}).versions == {"numpy": "1, 2"}
    assert open_store(filled, versions={"numpy": "2"}).versions == {"numpy": "1, 2"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": []}'])
def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(FewshotError, match=r"results\.json"):
        open_store(tmp_path)
    assert (tmp_path / "results.json").read_text() == text


def test_results_of_an_older_version_are_kept_beside(tmp_path: Path) -> None:
    old = {"signature": "0123", "rows": [{"case": "one"}], "models": {"basic": {}}}
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert open_store(tmp_path).rows == []
    assert json.loads((tmp_path / "results-0123.json").read_text()) == old


def test_a_stamp_changes_with_the_file_and_lists_folders(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_text("x")
    before = file_stamp(series, None)
    os.utime(series / "1.dcm", ns=(1, 1))
    assert file_stamp(series, None) != before


def test_a_failed_write_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "whole")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
