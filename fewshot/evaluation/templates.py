"""Which cases of a dataset become the templates of an evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.errors import FewshotError
from fewshot.support import Template, label_names


def shuffled_cases(dataset: Dataset, seed: int) -> list[Case]:
    """All labelled cases in an order that depends on their names and the seed alone."""
    cases = [dataset.labelled[name] for name in sorted(dataset.labelled)]
    random.Random(seed).shuffle(cases)
    return cases


def sample_templates(dataset: Dataset, shots: int, seed: int = 0) -> list[Case]:
    """Draw templates: the first shuffled cases that hold all labels, else those that add most labels.

    Label maps are read until enough cases with all labels are found. A case that cannot be read is not drawn.

    Raises:
        FewshotError: fewer labelled cases that can be read than shots.
    """

    def held(case: Case) -> set[int]:
        labels = dataset.label_map(case, dataset.volume(case))
        return set(np.unique(labels).tolist()) - {0}

    return draw_cases(dataset, shots, seed=seed, held=held, most=len(dataset.labels))


def draw_cases(
    dataset: Dataset, shots: int, *, seed: int, held: Callable[[Case], Set[Any]], most: int
) -> list[Case]:
    """The first shuffled cases that hold everything, else those that add most.

    Args:
        held: what a case holds; a case for which it raises FewshotError is not drawn.
        most: how much a case can hold.

    Raises:
        FewshotError: fewer labelled cases that can be read than shots.
    """
    order = shuffled_cases(dataset, seed)
    if not 1 <= shots <= len(order):
        raise FewshotError(
            f"{shots} templates cannot be drawn from {dataset.folder}: it has {len(order)} labelled cases."
        )
    known: dict[Case, Set[Any]] = {}
    full: list[Case] = []
    for case in order:
        try:
            known[case] = held(case)
        except FewshotError:
            continue  # whoever predicts it will say what is wrong with it
        full += [case] if len(known[case]) == most else []
        if len(full) == shots:
            return full
    if len(known) < shots:
        raise FewshotError(
            f"{shots} templates cannot be drawn from {dataset.folder}: of its {len(order)} labelled cases "
            f"{len(known)} can be read."
        )
    drawn: list[Case] = []
    seen: Set[Any] = set()
    for _ in range(shots):
        rest = [case for case in known if case not in drawn]
        drawn.append(max(rest, key=lambda case: (len(known[case] - seen), len(known[case]))))
        seen = seen | known[drawn[-1]]
    return drawn


def only_held(templates: Sequence[Template], labels: Mapping[str, int]) -> tuple[list[Template], list[str]]:
    """The templates, named by the labels that at least one of them holds.

    Args:
        templates: labelled volumes.
        labels: name -> value of all labels that are asked for.

    Returns:
        The templates, and the names that none of them holds: nothing can be learned about those.
    """
    held = set(label_names(templates))
    names = {name: value for name, value in labels.items() if name in held}
    return (
        [replace(template, names=names) for template in templates],
        [name for name in labels if name not in held],
    )
