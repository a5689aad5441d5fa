"""Rows survive exactly as long as what they depend on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fewshot.errors import FewshotError
from fewshot.evaluation.store import ResultStore, file_stamp, write_text
from tests.unit.evaluation.test_summary import row


def open_store(folder: Path, **changes: Any) -> ResultStore:
    """A store with one adapter and two cases."""
    arguments: dict[str, Any] = {
        "about": {"dataset": "set"},
        "settings": {"seed": 0},
        "options": {"basic": {}},
        "stamps": {"one": "1", "two": "2"},
    }
    return ResultStore(folder, **(arguments | changes))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with the rows of two cases."""
    store = open_store(tmp_path)
    store.rows += [row("one", "a", 0.5), row("two", "a", 0.7)]
    store.models = {"basic": {"digest": "1"}}
    store.stages = {"one": {"read": 0.1}, "two": {"read": 0.2}}
    store.write()
    return tmp_path


def test_results_hold_what_the_contract_names(filled: Path) -> None:
    results = json.loads((filled / "results.json").read_text())
    assert results["dataset"] == "set"
    assert [of["case"] for of in results["rows"]] == ["one", "two"]
    assert results["summary"]["basic"]["a"]["dice_mean"] == pytest.approx(0.6)


def test_the_same_settings_go_on(filled: Path) -> None:
    store = open_store(filled)
    assert store.has("one", "basic")
    assert store.has("two", "basic")
    assert store.models == {"basic": {"digest": "1"}}


def test_other_settings_start_anew_and_move_the_old_results_aside(filled: Path) -> None:
    before = (filled / "results.json").read_text()
    store = open_store(filled, settings={"seed": 1})
    assert store.rows == []
    (aside,) = filled.glob("results-*.json")
    assert aside.read_text() == before
    assert not (filled / "results.json").exists()


def test_a_changed_file_is_predicted_again(filled: Path) -> None:
    store = open_store(filled, stamps={"one": "changed", "two": "2"})
    assert not store.has("one", "basic")
    assert store.has("two", "basic")
    assert list(store.stages) == ["two"]


def test_changed_options_refit_that_adapter(filled: Path) -> None:
    store = open_store(filled, options={"basic": {"threshold": 0.4}})
    assert store.rows == []
    assert store.models == {}


def test_fewer_cases_or_other_adapters_take_nothing_away(filled: Path) -> None:
    store = open_store(filled, options={"contrastive": {}}, stamps={"two": "2"})
    assert store.has("one", "basic")
    assert not store.has("one", "contrastive")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": []}'])
def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(FewshotError, match=r"results\.json"):
        open_store(tmp_path)
    assert (tmp_path / "results.json").read_text() == text


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
