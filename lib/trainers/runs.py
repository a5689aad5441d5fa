"""The backbones that were trained in a workspace: their files, and how each of them stands."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from fewshot.errors import FewshotError
from lib.files import read_json, write_json
from lib.models import backbone_of
from lib.trainers.plans import Plan
from lib.workspace import Workspace

logger = logging.getLogger(__name__)

State = Literal["training", "waiting", "published", "refused"]
"""Being trained or interrupted; trained, but not compared yet; in use or once in use; found worse."""

SHOWN = ("events.out.tfevents*", "*.png")
"""What is kept of a run's folder once its backbone is trained: curves and pictures."""


@dataclass
class Run:
    """One training of a backbone.

    Attributes:
        file: its weights, once it is trained.
        state: how it stands.
        start: the backbone it goes on from, None for random weights.
        plan: what it was begun with.
        studies: what it is trained on; studies that came later wait for the next one.
        failed: those among them that were left out, with the reason.
    """

    file: Path
    state: State
    start: str | None
    plan: Plan
    studies: list[str]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.file.stem

    @property
    def folder(self) -> Path:
        """Where the engine keeps slices, checkpoint, curves and pictures."""
        return self.file.with_suffix(".run")

    @property
    def has_checkpoint(self) -> bool:
        """Whether a training was interrupted that can go on."""
        from fewshot.pretraining.run import STATE

        return (self.folder / STATE).exists()


class Runs:
    """The backbones trained in one workspace.

    Files are `backbones/NUMBER-DATE-TIME.safetensors` with the weights, `.json` with the rest of a `Run`, and the
    folder `.run`. Training, server and machine may stop at any time: what is there says how to go on.

    Args:
        workspace: theirs.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def pending(self) -> Run | None:
        """The training that was interrupted, or whose backbone waits for a comparison."""
        last = next(self._newest_first(), None)
        if last is None or last.state not in ("training", "waiting"):
            return None
        in_use = self._workspace.backbone_now() == str(last.file)  # stopped in the moment between
        return None if in_use else last

    def begin(self, plan: Plan, start: str | None, studies: list[str]) -> Run:
        """Write down a new training, and remove backbones that nothing needs any more."""
        last = next(self._newest_first(), None)
        number = int(last.name.split("-")[0]) + 1 if last else 1
        self._tidy(keep=start)
        name = f"{number:04d}-{datetime.now():%Y%m%d-%H%M%S}.safetensors"
        return self.note(Run(self._workspace.backbones / name, "training", start, plan, studies))

    def note(self, run: Run, state: State | None = None) -> Run:
        """Write down how a training stands."""
        run.state = state or run.state
        content = {key: value for key, value in asdict(run).items() if key != "file"}
        write_json(run.file.with_suffix(".json"), content)
        if run.state != "training":
            self._keep_pictures(run.folder)
        return run

    def discard(self, run: Run) -> None:
        """Remove a training."""
        run.file.with_suffix(".json").unlink(missing_ok=True)
        run.file.unlink(missing_ok=True)
        shutil.rmtree(run.folder, ignore_errors=True)

    def _newest_first(self) -> Iterator[Run]:
        records = self._workspace.backbones.glob("[0-9]*.json")
        for record in sorted(records, key=lambda path: int(path.stem.split("-")[0]), reverse=True):
            try:
                content = read_json(record)
                plan = Plan(**content.pop("plan"))
                yield Run(file=record.with_suffix(".safetensors"), plan=plan, **content)
            except (FewshotError, TypeError, KeyError) as error:
                logger.warning("The training recorded in %s is left alone: %s", record, error)

    def _tidy(self, *, keep: str | None) -> None:
        """Remove what neither the server nor any of the adapters that are kept needs."""
        needed = {Path(name).name for name in (self._workspace.backbone_now(), keep) if name}
        for path in self._workspace.folder.glob("adapters/*/[0-9]*.safetensors"):
            with suppress(FewshotError):
                needed.add(Path(backbone_of(path)).name)
        for run in list(self._newest_first()):
            if run.file.name not in needed:
                self.discard(run)

    @staticmethod
    def _keep_pictures(folder: Path) -> None:
        """Slices and checkpoint take far more room than all that people look at later."""
        shown = {path for pattern in SHOWN for path in folder.rglob(pattern)}
        for path in folder.rglob("*"):
            if path.is_file() and path not in shown:
                path.unlink(missing_ok=True)
