"""What is done when a GPU's memory is too small: fewer at once, then the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from fewshot.refine.sam.model import SamModel

Item = TypeVar("Item")
Answer = TypeVar("Answer")

SMALL_GPU = "not enough GPU memory: SAM ran on the CPU"


class Batches:
    """Sends work to a model in batches that fit its memory; what did not fit once is not tried again.

    Args:
        sam: the model; it is moved to the CPU when not even one item fits.
        size: items at once to begin with.
        notes: is told of the move.
    """

    def __init__(self, sam: SamModel, size: int, notes: list[str]) -> None:
        self.sam = sam
        self.size = max(1, size)
        self.notes = notes

    def run(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Answer]
    ) -> Iterator[tuple[Sequence[Item], Answer]]:
        """Every batch with the answer to it, in order.

        Raises:
            torch.cuda.OutOfMemoryError: where the CPU was no way out either.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                answer = work(batch)
            except torch.cuda.OutOfMemoryError:
                if len(batch) == 1 and self.sam.device.type == "cpu":
                    raise
            else:
                yield batch, answer
                start += len(batch)
                continue
            # outside of the handler: the exception's frames hold what has to be freed
            self._make_room(len(batch))

    def _make_room(self, failed: int) -> None:
        if failed > 1:
            self.size = (failed + 1) // 2
        else:
            self.sam.to(torch.device("cpu"))
            if SMALL_GPU not in self.notes:
                self.notes.append(SMALL_GPU)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
