"""The annotator loop from an empty folder to measured results, as `fewshot demo` runs it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from types import FrameType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fewshot.console import errors
from fewshot.console import results as stdout
from fewshot.demo.annotator import Annotator
from fewshot.demo.client import Client
from fewshot.demo.folder import DemoFolder
from fewshot.demo.results import Row, dice_table, mean_dice, mean_first_seconds, results, write_results
from fewshot.demo.server import Server
from fewshot.errors import FewshotError

FLOOR = 0.4
"""Mean Dice of the default adapter below which something is broken: eight seeds gave 0.47 to 0.71."""

BACKBONE = "embedded"
"""The backbone that comes with the project: nothing is downloaded, and every machine finds the same."""


def run_demo(
    folder: str | Path = "demo-output",
    *,
    serve: bool = False,
    studies: int = 6,
    template_slices: int = 6,
    seed: int = 0,
    port: int | None = None,
) -> int:
    """Play the whole loop over HTTP: studies, server, partial template, training, predictions, Dice.

    Progress goes to stderr, the table of results to stdout.

    Args:
        folder: receives everything the demo and its server write; emptied of an earlier demo.
        serve: leave the server running at the end until Ctrl-C, for a look with 3D Slicer.
        studies: how many studies to make up, the template among them.
        template_slices: how many slices of the template the annotator labels.
        seed: which studies.
        port: where the server listens; a free port by default.

    Returns:
        Exit code: 0, or 1 where the server failed or the predictions are worse than any should be.
    """
    place = DemoFolder(folder)
    try:
        with _terminable():
            _play(place, serve=serve, studies=studies, slices=template_slices, seed=seed, port=port)
    except FewshotError as error:
        errors.print(f"Error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        if place.log.exists():
            errors.print(f"The server's log: {place.log}", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _play(place: DemoFolder, *, serve: bool, studies: int, slices: int, seed: int, port: int | None) -> None:
    place.prepare()
    with _step() as step:
        truth = place.make_studies(studies, seed=seed)
        step.done = f"{studies} studies with {', '.join(truth.labels)}"
    server = Server(
        place.studies,
        place.log,
        conf={
            "backbone": BACKBONE,
            "workspace": str(place.server / "workspace"),
            "bank": str(place.server / "bank"),
        },
        environment={"MONAI_LABEL_SESSION_PATH": str(place.server / "sessions")},
        port=port,
    )
    with server:
        with _step("MONAI Label starts") as step:
            server.wait_until_ready()
            step.done = f"MONAI Label answers at {server.url}"
        annotator = Annotator(Client(server.url), truth, place)
        with _step() as step:
            template, drawn = annotator.label_next_sample(slices)
            numbers = ", ".join(str(number + 1) for number in drawn)
            step.done = f"template {template}: slices {numbers} labelled and submitted"
        for model in annotator.TRAINED:
            with _step(f"training {model}") as step:
                trained = annotator.train(model, step.show)
                step.done = f"{model} trained: {trained.epoch} epochs, accuracy {trained.accuracy:.2f}"
        with _step("predicting") as step:
            rows = annotator.predict_others(template, step.show)
            step.done = f"{studies - 1} studies segmented by {len(annotator.MODELS)} models"
        _report(rows, place, template, len(drawn))
        if serve:
            _keep_serving(server, place)


def _report(rows: list[Row], place: DemoFolder, template: str, slices: int) -> None:
    """Table to stdout, numbers to the folder.

    Raises:
        FewshotError: the default adapter stays below the floor.
    """
    others = len({row.case for row in rows})
    stdout.print(f"Found in {others} unseen studies, from {slices} labelled slices of {template} (Dice):")
    stdout.print(dice_table(rows))
    stdout.print(f"The first request for a study computes its features: {mean_first_seconds(rows):.1f} s.")
    write_results(place.results, results(rows, dataset="phantoms", templates=[template], backbone=BACKBONE))
    errors.print(f"Pictures: {place.pictures}\nNumbers:  {place.results}", highlight=False, soft_wrap=True)
    score = mean_dice(rows, adapter="auto")
    if score is None or score < FLOOR:
        raise FewshotError(
            f"The mean Dice of the default adapter is {score or 0:.2f}, and below {FLOOR} something is broken: "
            f"look at {place.pictures}."
        )


def _keep_serving(server: Server, place: DemoFolder) -> None:
    """Say what to open, and wait for Ctrl-C."""
    errors.print(
        f"\nThe server stays at [bold]{server.url}[/] until Ctrl-C. To look at it:\n"
        f"  3D Slicer   module MONAI Label, server {server.url}, then Next Sample and Run\n"
        f"  browser     {server.url} for every call of the API\n"
        f"  pictures    {place.pictures}\n"
        "OHIF shows studies of a DICOMweb server, not of a folder, so it has nothing to show here.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        while server.running:
            sleep(0.5)
    except KeyboardInterrupt:
        return
    raise FewshotError(f"The MONAI Label server ended by itself. {server.last_words()}")


class _Step:
    """One line on the terminal: a bar while it lasts, a sentence with the seconds when it is done."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._bar = progress.add_task(name, total=None)
        self.done = ""

    def show(self, done: int, total: int) -> None:
        self._progress.update(self._bar, completed=done, total=total or None)


@contextmanager
def _step(name: str = "studies") -> Iterator[_Step]:
    began = perf_counter()
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        step = _Step(progress, name)
        yield step
    seconds = f"[dim]({perf_counter() - began:.1f} s)[/]"
    errors.print(f"[green]✓[/] {step.done} {seconds}", highlight=False, soft_wrap=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn termination and hang-up into an exit that runs every clean-up, the server's above all."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
        before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
