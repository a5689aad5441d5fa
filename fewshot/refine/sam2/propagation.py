"""Masks carried from slice to slice by the memory of SAM 2, forward and backward from those that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Embedding, Frame
from fewshot.refine.sam2.tracking import Reference, Tracked, Tracker

if TYPE_CHECKING:
    from fewshot.refine.sam2.model import Sam2Model


def propagate(
    sam: Sam2Model,
    embeddings: Callable[[int], Embedding],
    extent: range,
    memory: Mapping[int, np.ndarray | Prompt],
    frame: Frame,
    *,
    start: int | None = None,
    references: Sequence[Reference] = (),
    patience: int = 2,
    notes: list[str] | None = None,
) -> Iterator[Tracked]:
    """Find an object in the slices around those where it is known, as the package's ``SAM2VideoPredictor``.

    Args:
        sam: the model.
        embeddings: gives the embedding of a slice; asked for the slices that are visited only.
        extent: slices that may be visited, in steps of 1.
        memory: slices where the object is known: its mask, bool ``[rows, cols]``, or a prompt for it.
        frame: how these slices lie in the model's image.
        start: where to begin if ``memory`` is empty and ``references`` are not; by default in the middle.
        references: slices of other volumes, seen before all others.
        patience: a direction ends after so many slices in a row without the object.
        notes: is told when less memory had to do.

    Yields:
        The known slices first, then those after the first known one, then those before it.
    """
    if not memory and not references:
        raise ValueError("there is nothing to propagate")
    tracker = Tracker(sam, embeddings, extent, frame, [] if notes is None else notes)
    for reference in references:
        tracker.refer(reference)
    for index in sorted(memory):
        yield tracker.condition(index, memory[index])
    if memory:
        first = min(memory)
    else:
        first = extent[len(extent) // 2] if start is None else start
        yield tracker.follow(first)
    onward = range(first + 1, extent.stop)
    for backward, indices in ((False, onward), (True, range(first - 1, extent.start - 1, -1))):
        absent = 0
        for index in indices:
            if index in memory:
                absent = 0
                continue
            found = tracker.follow(index, backward=backward)
            yield found
            absent = 0 if found.presence > 0 else absent + 1
            if absent >= patience and (backward or index > max(memory, default=first)):
                break
