"""Training statistics as viewers read them while the training runs."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lib.files import write_json

INTERVAL = 0.25
"""Seconds between two writes; viewers poll every few seconds."""


class TrainingStats:
    """The statistics file of one training, in the form of MONAI Label's `BasicTrainTask`.

    Slicer shows `epoch` of `total_epochs` as progress and `best_metric` (0..1) as accuracy, and takes a
    training with `total_time` for finished; so that key is written at the end only.

    Args:
        path: the file.
        model: the model's name.
        total_epochs: at most so many.
        templates: ids of the template images.
    """

    def __init__(self, path: Path, *, model: str, total_epochs: int, templates: list[str]) -> None:
        self.path = path
        self._start = time.time()
        self._written = 0.0
        self.content: dict[str, Any] = {
            "model": model,
            "epoch": 0,
            "total_epochs": total_epochs,
            "best_metric": 0.0,
            "start_ts": int(self._start),
            "stage": "templates",
            "templates": templates,
        }
        self._write()

    def progress(self, stage: str, done: int, total: int, **values: float) -> None:
        """Write down how far the engine has come."""
        finished = done == total
        self.content |= {"stage": stage, "done": done, "total": total}
        if stage == "train":
            accuracy = min(1.0, max(0.0, float(values.get("accuracy", 0.0))))
            best = max(self.content["best_metric"], round(accuracy, 4))
            self.content |= {"epoch": done, "total_epochs": total, "best_metric": best}
            self.content["train"] = {"loss": values.get("loss")}
        if finished or time.time() - self._written > INTERVAL:
            self._write()

    def finish(self, **values: Any) -> dict[str, Any]:
        """Write the last state, with what came of the training."""
        for key in ("stage", "done", "total"):
            self.content.pop(key, None)
        self.content |= values
        self.content["total_time"] = self._elapsed()
        self.content.pop("current_time", None)
        write_json(self.path, self.content)
        return self.content

    def _write(self) -> None:
        self._written = time.time()
        self.content["current_time"] = self._elapsed()
        write_json(self.path, self.content)

    def _elapsed(self) -> str:
        return str(timedelta(seconds=int(time.time() - self._start)))
