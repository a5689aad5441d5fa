"""Training statistics as viewers read them while the training runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from fewshot.progress import Progress
from lib.files import write_json

logger = logging.getLogger(__name__)

INTERVAL = 0.25
"""Seconds between two writes; viewers poll every few seconds."""

LOG_SECONDS = 30.0
"""Seconds between two lines in the log, whose last lines viewers show while a training runs."""


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

    def __init__(
        self, path: Path, *, model: str, total_epochs: int = 1, templates: Sequence[str] = ()
    ) -> None:
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
            "templates": list(templates),
        }
        self._write()

    def progress(self, stage: str, done: int, total: int, **values: float) -> None:
        """Write down how far the engine has come."""
        self.content |= {"stage": stage, "done": done, "total": total}
        if stage == "train":
            accuracy = min(1.0, max(0.0, float(values.get("accuracy", 0.0))))
            best = max(self.content["best_metric"], round(accuracy, 4))
            self.content |= {"epoch": done, "total_epochs": total, "best_metric": best}
            self.content["train"] = {"loss": values.get("loss")}
        self._write_sometimes(done == total)

    def note(self, **values: Any) -> None:
        """Write down something that is known from now on."""
        self.content |= values
        self._write()

    def finish(self, **values: Any) -> dict[str, Any]:
        """Write the last state, with what came of the training."""
        self.content = ended(self.content, self._elapsed(), values)
        write_json(self.path, self.content)
        return self.content

    def _write_sometimes(self, finished: bool) -> None:
        if finished or time.time() - self._written > INTERVAL:
            self._write()

    def _write(self) -> None:
        self._written = time.time()
        self.content["current_time"] = self._elapsed()
        write_json(self.path, self.content)

    def _elapsed(self) -> str:
        return str(timedelta(seconds=int(time.time() - self._start)))


def ended(content: Mapping[str, Any], total_time: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics as viewers expect them of a training that has ended.

    Args:
        content: what was written last.
        total_time: how long it took.
        values: what came of it.
    """
    passing = ("stage", "done", "total", "current_time")
    return {key: value for key, value in content.items() if key not in passing} | {
        **values,
        "total_time": total_time,
    }


class BackboneStats(TrainingStats):
    """The statistics file of a backbone's training.

    `epoch` of `total_epochs` are percent of the whole, and `best_metric` is the Dice coefficient of templates that were
    left out, once it is known. `stage` is one of `STAGES`, with `done` of `total`; during "pretrain" these are images,
    and the entry of that name has the speed, the seconds left and the loss.
    """

    STAGES: ClassVar[dict[str, int]] = {"slices": 5, "pretrain": 75, "compare": 10, "bank": 5, "adapters": 5}
    """The stages in their order, with their percent of the progress bar."""

    def __init__(self, path: Path, *, model: str, templates: Sequence[str] = ()) -> None:
        self._logged = 0.0
        super().__init__(path, model=model, total_epochs=sum(self.STAGES.values()), templates=templates)

    def progress(self, stage: str, done: int, total: int, **values: float) -> None:
        self._advance(stage, done, total, done / max(1, total))
        if stage == "pretrain":
            self.content["pretrain"] = {
                "images": done,
                "images_per_second": round(values["images_per_second"], 2),
                "seconds_left": round(values["seconds_left"]),
                "loss": round(values["loss"], 4),
            }
            self._log()
        self._write_sometimes(done == total)

    def within(self, stage: str, part: int = 0, parts: int = 1) -> Progress:
        """Progress of one of several equal parts of a stage, whatever the engine calls what it does there."""

        def report(_step: str, done: int, total: int, **_values: float) -> None:
            self._advance(stage, done, total, (part + done / max(1, total)) / parts)
            self._write_sometimes(done == total)

        return report

    def _advance(self, stage: str, done: int, total: int, share: float) -> None:
        before = sum(list(self.STAGES.values())[: list(self.STAGES).index(stage)])
        percent = int(before + self.STAGES[stage] * min(1.0, share))
        self.content |= {"stage": stage, "done": done, "total": total}
        self.content["epoch"] = max(self.content["epoch"], percent)

    def _log(self) -> None:
        if time.time() - self._logged > LOG_SECONDS:
            self._logged = time.time()
            now = self.content["pretrain"]
            left = timedelta(seconds=now["seconds_left"])
            logger.info(
                "Pretraining: %d images, %.1f images/s, %s left, loss %.3f",
                now["images"],
                now["images_per_second"],
                left,
                now["loss"],
            )
