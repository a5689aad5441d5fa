"""results.json while it grows: what is done stays done, whatever happens next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError
from fewshot.evaluation.summary import summarise


class ResultStore:
    """The results of one evaluation folder, written after every case.

    Rows that are already there are kept if they were made with the same settings from the same files; the
    results of other settings are moved to `results-SIGNATURE.json` beside it.

    Args:
        folder: where results.json lies.
        about: what results.json begins with; nothing depends on it.
        settings: everything that all rows depend on; JSON values.
        options: adapter -> its options, everything that its rows depend on besides.
        stamps: case -> a text that changes with its files.

    Attributes:
        rows: one per case, adapter and label.
        models: adapter -> what is known about its fitted model.
        stages: case -> seconds to read it and to compute its features.
        failed: case -> why it has no rows; of this run alone.

    Raises:
        FewshotError: results.json is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        about: Mapping[str, Any],
        settings: Mapping[str, Any],
        options: Mapping[str, Mapping[str, Any]],
        stamps: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.path = folder / "results.json"
        self.signature = hashlib.blake2b(_canonical(settings).encode(), digest_size=8).hexdigest()
        self.about = dict(about)
        self.settings = dict(settings)
        self.options = {adapter: dict(of) for adapter, of in options.items()}
        self.stamps = dict(stamps)
        self.rows: list[dict[str, Any]] = []
        self.models: dict[str, dict[str, Any]] = {}
        self.stages: dict[str, dict[str, float]] = {}
        self.failed: dict[str, str] = {}
        self._resume()

    def _resume(self) -> None:
        try:
            old = json.loads(self.path.read_text(encoding="utf-8"))
            signature = str(old["signature"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FewshotError(
                f"{self.path} holds no results of an evaluation: move it away or give another folder."
            ) from error
        if signature != self.signature:
            self.path.replace(self.folder / f"results-{signature}.json")
            return
        self.options = old["options"] | self.options
        kept = {adapter for adapter in self.options if old["options"].get(adapter) == self.options[adapter]}
        self.stamps = old["stamps"] | self.stamps
        fresh = {case for case in self.stamps if old["stamps"].get(case) == self.stamps[case]}
        self.rows = [row for row in old["rows"] if row["adapter"] in kept and row["case"] in fresh]
        self.models = {adapter: of for adapter, of in old["models"].items() if adapter in kept}
        self.stages = {case: of for case, of in old["stages"].items() if case in fresh}

    def has(self, case: str, adapter: str) -> bool:
        """Whether the rows of a case and an adapter are there."""
        return any(row["case"] == case and row["adapter"] == adapter for row in self.rows)

    def write(self) -> dict[str, Any]:
        """Write results.json in one piece and return its content."""
        order = list(self.options)
        self.rows.sort(key=lambda row: (row["case"], order.index(row["adapter"])))
        results = {
            **self.about,
            "rows": self.rows,
            "summary": summarise(self.rows),
            "models": self.models,
            "stages": self.stages,
            "failed": self.failed,
            "settings": self.settings,
            "options": self.options,
            "stamps": self.stamps,
            "signature": self.signature,
        }
        write_text(self.path, json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return results


def file_stamp(*paths: Path | None) -> str:
    """A text that changes when one of the files (or folders of files) does."""
    present = [path for path in paths if path]
    files = [file for path in present for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that no reader ever sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
