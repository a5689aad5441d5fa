"""Templates of which only a few slices are labelled, as a person does who has no time for a whole volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewshot.errors import FewshotError
from fewshot.support import Template


def keep_slices(template: Template, count: int, axis: int) -> tuple[Template, list[int]]:
    """Keep the labels of a few slices; nothing is known of the others.

    Args:
        template: a labelled volume.
        count: how many slices to keep, at least 1; all labelled ones where there are fewer.
        axis: the array axis along which the slices lie.

    Returns:
        The template with these slices alone (`complete` is False), and their indices along the axis.
    """
    planes = np.moveaxis(template.labels, axis, 0)
    values = sorted(template.values)
    held = np.stack([(planes == value).any(axis=(1, 2)) for value in values], axis=1)  # [S, L]
    chosen = choose_slices(held, count)
    kept = np.zeros_like(planes)
    kept[chosen] = planes[chosen]
    return replace(template, labels=np.moveaxis(kept, 0, axis), complete=False), chosen


def choose_slices(held: np.ndarray, count: int) -> list[int]:
    """Slices spread evenly over the labelled ones, moved as little as it takes to show the labels.

    The labelled slices are cut into `count` equal parts, and the middle one of each is taken. Where these do not
    show every label that `count` slices can show (chosen one by one, each adding most labels), the slices that do
    take the places of their nearest neighbours.

    Args:
        held: bool [S, L], whether a slice shows a label.
        count: how many to choose.

    Raises:
        FewshotError: count is below 1.

    Returns:
        Indices in ascending order; all labelled slices where there are no more than `count`.
    """
    if count < 1:
        raise FewshotError(f"{count} labelled slices per template are too few: give at least 1.")
    labelled = np.flatnonzero(held.any(axis=1))
    if len(labelled) <= count:
        return labelled.tolist()
    even = labelled[((np.arange(count) + 0.5) * len(labelled) / count).astype(int)].tolist()
    needed = _covering(held, count, prefer=even)
    if held[even].any(axis=0).sum() >= held[needed].any(axis=0).sum():
        return even
    free = [index for index in even if index not in needed]
    for index in needed:
        if index not in even:
            free.remove(min(free, key=lambda other: abs(other - index)))
    return sorted({*free, *needed})


def _covering(held: np.ndarray, count: int, *, prefer: list[int]) -> list[int]:
    """At most `count` slices, one by one that which adds most labels, preferred ones first among equals."""
    chosen: list[int] = []
    missing = held.any(axis=0)
    middle = float(np.flatnonzero(held.any(axis=1)).mean())
    while missing.any() and len(chosen) < count:
        adds = (held & missing).sum(axis=1)
        best = max(range(len(held)), key=lambda index: (adds[index], index in prefer, -abs(index - middle)))
        chosen.append(best)
        missing = missing & ~held[best]
    return chosen
