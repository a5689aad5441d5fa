"""What the terminal shows while a demo runs: one line for every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fewshot.console import errors


class Step:
    """One line: a bar while the step lasts, a sentence with the seconds when it is done.

    Attributes:
        done: the sentence, to be set before the step ends.
    """

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._bar = progress.add_task(name, total=None)
        self.done = ""

    def show(self, done: int, total: int) -> None:
        """Move the bar; a total of 0 is one that is not known."""
        self._progress.update(self._bar, completed=done, total=total or None)


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show a step on stderr while the block runs."""
    began = perf_counter()
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        shown = Step(progress, name)
        yield shown
    seconds = f"[dim]({perf_counter() - began:.1f} s)[/]"
    errors.print(f"[green]✓[/] {shown.done} {seconds}", highlight=False, soft_wrap=True)


def note(sentence: str) -> None:
    """Say something that the user should know, on stderr."""
    errors.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)
