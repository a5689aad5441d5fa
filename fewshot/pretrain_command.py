"""``fewshot pretrain``."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fewshot.console import STAGES, errors, progress_bars, results
from fewshot.errors import FewshotError
from fewshot.options import DeviceOption, JsonOption, key_values, require_model_file, write_json
from fewshot.progress import Progress, silent

LINE_SECONDS = 30.0
"""Between two lines of progress where no terminal can show a bar."""


def pretrain(
    studies: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of volumes, volumes, or .json lists of them; no labels needed.",
            metavar="STUDIES...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Weights file to write, such as weights.safetensors.")],
    start: Annotated[
        str | None,
        typer.Option(
            # torchrun takes --start for an option of its own
            "--from",
            help="Backbone to go on from (a name or file); by default random weights.",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Train so long; without it, --images decides alone.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=0, help="Train on so many images; 0 for no limit.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Images in a step, all processes together.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Compute a step in so many parts, to save memory.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Setting KEY=VALUE of the recipe; may be repeated. A wrong one lists all."
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the paths in .json lists.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of going on from the checkpoint.")
    ] = False,
    device: DeviceOption = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Of slices, crops and initial weights.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Train a backbone on studies without labels (DINOv2's recipe); goes on where it was interrupted.

    Several GPUs: torchrun --nproc-per-node N -m fewshot pretrain ...
    """
    from dataclasses import asdict

    try:
        from fewshot.pretraining import PretrainSettings, open_studies
        from fewshot.pretraining import pretrain as run
        from fewshot.pretraining.run import run_folder
    except ModuleNotFoundError as error:
        raise FewshotError(
            f"`fewshot pretrain` needs {error.name}, which is not installed; install fewshot[pretrain]."
        ) from error

    require_model_file(out)
    told = {"minutes": minutes, "images": images, "batch": batch, "accumulate": accumulate, "seed": seed}
    values = key_values(set_) | {name: value for name, value in told.items() if value is not None}
    if values.get("minutes"):
        values.setdefault("images", 0)  # the clock decides alone
    settings = PretrainSettings.create(values)
    readers = open_studies(studies, root=root)
    first = os.environ.get("RANK", "0") == "0"  # torchrun starts this in several processes
    folder = run_folder(out)
    if first:
        _say(f"Curves: tensorboard --logdir {folder}; pictures of the features: {folder / 'pictures'}")
    with _progress(first) as progress, _interruptible(progress) as (watched, stop):
        result = run(
            readers,
            out,
            start=start,
            settings=settings,
            device=device,
            restart=restart,
            progress=watched,
            left_out=_say_left_out,
            stop=stop,
        )
    if not first:
        return
    write_json(json_file, {**asdict(result), "path": str(result.path)})
    results.print(
        f"{out}: {result.images} images in {result.seconds / 60:.1f} minutes, {len(readers) - len(result.failed)} "
        f"studies, {len(result.failed)} left out{', went on from a checkpoint' if result.resumed else ''}",
        markup=False,
        soft_wrap=True,
    )
    if not result.finished:
        _say("Stopped before the end: the weights can be used, and the same command goes on.")
    elif not result.trained:
        _say("This training was finished already; --restart trains anew.")


def _say(text: str, style: str | None = None) -> None:
    errors.print(text, style=style, markup=False, soft_wrap=True)


def _say_left_out(failed: dict[str, str]) -> None:
    for name, reason in failed.items():
        _say(f"Left out {name}: {reason}", "yellow")


@contextmanager
def _progress(first: bool) -> Iterator[Progress]:
    """Bars on a terminal, else lines; one process speaks for all."""
    if not first:
        yield silent
    elif errors.is_terminal:
        with progress_bars() as bars:

            def brief(stage: str, done: int, total: int, **values: float) -> None:
                shown = {"images/s": values["images_per_second"]} if "images_per_second" in values else {}
                bars(
                    stage, done, total, **shown, **{k: values[k] for k in ("loss", "accuracy") if k in values}
                )

            yield brief
    else:
        yield _lines()


def _lines() -> Progress:
    """Progress for a log file: a line at the beginning and the end of a stage and now and then between."""
    told: dict[str, float] = {}

    def report(stage: str, done: int, total: int, **values: float) -> None:
        now = time.monotonic()
        if done < total and now - told.get(stage, -math.inf) < LINE_SECONDS:
            return
        told[stage] = now
        said = [f"{STAGES.get(stage, stage)}: {done} of {total}"]
        if "seconds_left" in values:
            left = timedelta(seconds=round(values.pop("seconds_left")))
            said += [f"{values.pop('images_per_second'):.1f} images/s", f"{left} left"]
        _say(", ".join(said + [f"{name} {value:.3f}" for name, value in values.items()]))

    return report


@contextmanager
def _interruptible(progress: Progress) -> Iterator[tuple[Progress, Callable[[], bool]]]:
    """Ctrl-C asks a training to stop after its step, with a checkpoint and weights; a second one ends at once.

    Yields:
        The progress to report to, and whether to stop.
    """
    training = asked = False

    def watched(stage: str, done: int, total: int, **values: float) -> None:
        nonlocal training
        training = training or stage == "pretrain"
        progress(stage, done, total, **values)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not training:
            raise KeyboardInterrupt
        asked = True
        _say("Stopping after this step; Ctrl-C again stops at once and keeps the last checkpoint.")

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell may have told to ignore it
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield watched, lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
