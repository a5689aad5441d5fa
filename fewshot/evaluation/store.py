"""results.json while it grows: what is done stays done, whatever happens next."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from fewshot.errors import FewshotError
from fewshot.evaluation.journal import LISTS, Record, concluded, merge
from fewshot.evaluation.refiners import in_order
from fewshot.evaluation.summary import method_of, summarise, summarise_cases
from fewshot.refine import UNREFINED

Unit = tuple[int, str, str, str]
"""What is predicted at a time: seed, case, adapter or baseline, refinement."""

UNREFINED_ONLY: Mapping[str, Mapping[str, Any]] = {UNREFINED: {}}


class ResultStore:
    """The results of one evaluation folder.

    What comes in is appended to a journal at once, so that a process may be killed at any moment; `write` gathers it
    in results.json, which names the journal that continues it. Rows that are already there are kept if they were
    made with the same settings from the same files; the results of other settings are moved to
    `results-SIGNATURE.json` beside it.

    Args:
        folder: where results.json lies.
        about: what results.json begins with; nothing depends on it.
        settings: everything that all rows depend on; JSON values.
        options: adapter or baseline -> its options, everything that its rows depend on besides.
        refiners: refinement -> everything that its rows depend on besides.
        stamps: case -> a text that changes with its files.
        names: all labels, for the confusion matrix.
        versions: package -> version.

    Attributes:
        TASK: what is evaluated.
        VARIANT, VARIANTS: how rows call the last part of their unit, and the results all of those.
        failed: what has no rows -> why; of this run alone.
        notes: case -> what reading its files had to decide.

    Raises:
        FewshotError: results.json is damaged, or holds results of another task.
    """

    TASK: ClassVar[str] = "segmentation"
    VARIANT: ClassVar[str] = "refine"
    VARIANTS: ClassVar[str] = "refiners"

    def __init__(
        self,
        folder: Path,
        *,
        about: Mapping[str, Any],
        settings: Mapping[str, Any],
        options: Mapping[str, Mapping[str, Any]],
        refiners: Mapping[str, Mapping[str, Any]] = UNREFINED_ONLY,
        stamps: Mapping[str, str],
        names: Collection[str] = (),
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / "results.json"
        self.signature = hashlib.blake2b(_canonical(settings).encode(), digest_size=8).hexdigest()
        self.about = dict(about)
        self.settings = dict(settings)
        self.options = {name: dict(of) for name, of in options.items()}
        self.refiners = {name: dict(of) for name, of in refiners.items()}
        self.stamps = dict(stamps)
        self.names = list(names)
        self.versions = dict(versions or {})
        self.failed: dict[str, str] = {}
        self.notes: dict[str, list[str]] = {}
        self.rows: list[Record] = []
        self.timings: list[Record] = []
        self.confusions: list[Record] = []
        self.digests: dict[str, Record] = {}
        self._models: dict[tuple[int, str], Record] = {}
        self._runs: dict[int, Record] = {}
        self._journal: Path | None = None
        old = self._read()
        if old and old["signature"] != self.signature:
            _write_json(folder / f"results-{old['signature']}.json", concluded(old, self.condensed))
            self.path.unlink()
        elif old:
            self._resume(old)
        self._done = {self._unit(row) for row in self.rows}
        self.write(journal=True)

    def condensed(self, rows: Sequence[Record]) -> Record:
        """The rows condensed: "summary" and "overall"."""
        return {"summary": summarise(rows), "overall": summarise_cases(rows)}

    def in_order(self) -> list[str]:
        """All variants, as results list them."""
        return in_order(self.refiners)

    def has(self, unit: Unit) -> bool:
        """Whether the rows of a unit are there."""
        return unit in self._done

    def model(self, seed: int, name: str) -> Record | None:
        """What is known about a fitted adapter or baseline."""
        return self._models.get((seed, name))

    def models(self) -> list[Record]:
        """All of them, by seed, in the order of the options."""
        order = list(self.options)
        return [
            self._models[key] for key in sorted(self._models, key=lambda key: (key[0], order.index(key[1])))
        ]

    def begin(self, run: Mapping[str, Any]) -> None:
        """Tell the templates of a seed; what was made with others is dropped.

        Args:
            run: an entry of `runs`, with "digests" of the templates as they are used.
        """
        seed = run["seed"]
        old = self._runs.get(seed)
        if old is not None and old["digests"] != run["digests"]:
            self.forget(seed)
        self._runs[seed] = dict(run)
        self._append({"runs": [run]})

    def note(self, case: str, notes: Iterable[str]) -> None:
        """Keep what reading a case had to decide, as a template or as one that is predicted."""
        known = self.notes.get(case, [])
        if joined := list(dict.fromkeys([*known, *notes])):
            self.notes[case] = joined
        if joined != known:
            self._append({"notes": {case: joined}})

    def forget(self, seed: int, name: str | None = None) -> None:
        """Drop what was made with a seed, or with an adapter or baseline and a seed."""

        def stays(entry: Mapping[str, Any]) -> bool:
            return entry["seed"] != seed or name not in (None, entry["adapter"])

        for key in LISTS:
            setattr(self, key, [entry for entry in getattr(self, key) if stays(entry)])
        self._models = {key: of for key, of in self._models.items() if stays(of)}
        self._done = {self._unit(row) for row in self.rows}
        self.write(journal=True)

    def add_model(self, record: Record) -> None:
        """Note an adapter or baseline that has been fitted, with its "seed" and "adapter"."""
        self._models[record["seed"], record["adapter"]] = record
        self._append({"models": [record]})

    def add(
        self,
        unit: Unit,
        rows: Iterable[Record],
        timing: Record,
        voxels: Record | None,
        digests: Mapping[str, Record],
    ) -> None:
        """Note the result of a unit.

        Args:
            unit: what was predicted.
            rows: one per label, without the unit's own columns.
            timing: seconds per stage.
            voxels: confusion matrix, if there is one.
            digests: case -> digests of the voxels that were read.
        """
        common = dict(zip(("seed", "case", "adapter", self.VARIANT), unit, strict=True))
        added: dict[str, list[Record]] = {
            "rows": [common | row for row in rows],
            "timings": [common | timing],
            "confusions": [] if voxels is None else [{**common, "voxels": voxels}],
        }
        for key, entries in added.items():
            getattr(self, key).extend(entries)
        self.digests.update(digests)
        self._done.add(unit)
        self._append({**added, "digests": dict(digests)})

    def write(self, *, journal: bool = False) -> Record:
        """Write results.json in one piece and return its content.

        Args:
            journal: whether more will come.
        """
        order, variants = list(self.options), self.in_order()

        def place(entry: Record) -> tuple[int, int]:
            return order.index(entry["adapter"]), variants.index(entry[self.VARIANT])

        for key in LISTS:
            getattr(self, key).sort(key=lambda entry: (entry["seed"], entry["case"], *place(entry)))
        by_method = sorted(self.rows, key=place)
        runs = [self._runs[seed] for seed in sorted(self._runs)]
        old, self._journal = (
            self._journal,
            self.folder / f".results-{uuid.uuid4().hex[:12]}.jsonl" if journal else None,
        )
        results = {
            "task": self.TASK,
            **self.about,
            "templates": list(dict.fromkeys(name for run in runs for name in run["templates"])),
            "labels_without_template": [
                name for name in self.names if any(name in run["labels_without_template"] for run in runs)
            ],
            "seeds": [run["seed"] for run in runs],
            "runs": runs,
            "rows": self.rows,
            **self.condensed(by_method),
            "models": self.models(),
            "timings": self.timings,
            "confusion": _summed(sorted(self.confusions, key=place), ["background", *self.names]),
            "confusions": self.confusions,
            "notes": dict(sorted(self.notes.items())),
            "failed": self.failed,
            "settings": self.settings,
            "options": self.options,
            self.VARIANTS: {name: self.refiners[name] for name in variants},
            "stamps": self.stamps,
            "digests": dict(sorted(self.digests.items())),
            "signature": self.signature,
            "versions": self.versions,
            "journal": self._journal.name if self._journal else None,
        }
        _write_json(self.path, results)
        if old:
            old.unlink(missing_ok=True)
        return results

    def _unit(self, row: Mapping[str, Any]) -> Unit:
        return row["seed"], row["case"], row["adapter"], row[self.VARIANT]

    def _append(self, entry: Record) -> None:
        """Add a line to the journal."""
        if self._journal is None:
            raise ValueError("The results are closed.")
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")

    def _read(self) -> Record | None:
        """What results.json and its journal hold together; None if there is none."""
        try:
            old = json.loads(self.path.read_text(encoding="utf-8"))
            old["signature"] = str(old["signature"])
            journal = old.get("journal")
        except FileNotFoundError:
            old, journal = None, None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FewshotError(
                f"{self.path} holds no results of an evaluation: move it away or give another folder."
            ) from error
        if old and old.get("task", ResultStore.TASK) != self.TASK:
            raise FewshotError(
                f"{self.path} holds an evaluation of {old.get('task', ResultStore.TASK)}, not of {self.TASK}: give "
                "another folder."
            )
        if journal:
            with suppress(FileNotFoundError):
                merge(old, (self.folder / journal).read_text(encoding="utf-8", errors="replace"))
        return old

    def _resume(self, old: Record) -> None:
        """Take over what still holds."""
        self.options = old["options"] | self.options
        kept = {name for name in self.options if old["options"].get(name) == self.options[name]}
        refiners = old.get(self.VARIANTS, UNREFINED_ONLY)
        self.refiners = {**refiners, **self.refiners}
        unchanged = {name for name, of in refiners.items() if of == self.refiners[name]}
        self.stamps = old["stamps"] | self.stamps
        fresh = {case for case in self.stamps if old["stamps"].get(case) == self.stamps[case]}
        for key in LISTS:
            setattr(
                self,
                key,
                [
                    of
                    for of in old[key]
                    if of["adapter"] in kept and of[self.VARIANT] in unchanged and of["case"] in fresh
                ],
            )
        self.digests = {case: of for case, of in old["digests"].items() if case in fresh}
        self.notes = {case: of for case, of in old.get("notes", {}).items() if case in fresh}
        self._models = {(of["seed"], of["adapter"]): of for of in old["models"] if of["adapter"] in kept}
        self._runs = {run["seed"]: run for run in old["runs"]}
        for package, version in old["versions"].items() if self.rows else ():
            here = self.versions.get(package, version)
            self.versions[package] = version if here in version.split(", ") else f"{version}, {here}"
        if old.get("journal"):
            self._journal = self.folder / old["journal"]  # gathered by the first `write`


def prediction_path(folder: Path, method: str, case: str, seed: int) -> Path:
    """Where an evaluation keeps a predicted label map; `method` is named as in the summary.

    The colon before a prompt strategy becomes a hyphen, for file systems that do not allow it: `auto+sam-box`.
    """
    return folder / f"seed-{seed}" / "predictions" / method.replace(":", "-") / f"{case}.nii.gz"


def model_path(folder: Path, adapter: str, seed: int) -> Path:
    """Where an evaluation keeps a fitted adapter."""
    return folder / f"seed-{seed}" / "models" / f"{adapter}.safetensors"


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


def _summed(confusions: Iterable[Record], names: list[str]) -> dict[str, dict[str, dict[str, int]]]:
    """The confusion matrix of each method over all its cases and seeds, with the pairs that do not occur."""
    summed: dict[str, dict[str, dict[str, int]]] = {}
    for entry in confusions:
        table = summed.setdefault(method_of(entry), {name: dict.fromkeys(names, 0) for name in names})
        for truth, row in entry["voxels"].items():
            for predicted, voxels in row.items():
                table[truth][predicted] += voxels
    return summed


def _write_json(path: Path, content: Record) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
