"""What the command line shows while it works: progress on stderr, one bar per stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from fewshot.progress import Progress

STAGES = {
    "download": "Downloading the weights (MB)",
    "read": "Reading",
    "features": "Computing features",
    "train": "Training the adapter",
    "predict": "Predicting",
    "encode": "Encoding slices for SAM",
    "refine": "Refining",
    "write": "Writing",
    "slices": "Cutting studies into slices",
    "pretrain": "Training the backbone (images)",
}

errors = Console(stderr=True)
results = Console()


@contextmanager
def progress_bars(*, title: str = "") -> Iterator[Progress]:
    """Draws what a ``Progress`` callback is told; values such as the accuracy stand behind the bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    bars = Bars(*columns, console=errors)
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int, **values: float) -> None:
        if not tasks:
            bars.start()  # not before: bars without a task leave an empty line behind
        if stage not in tasks:
            label = f"{title} {STAGES.get(stage, stage)}".strip()
            tasks[stage] = bars.add_task(label, total=total, values="")
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        bars.update(tasks[stage], completed=done, total=total, values=shown)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()
