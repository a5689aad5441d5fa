"""Which cases of a dataset become the templates of an evaluation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.errors import FewshotError
from fewshot.support import Template, label_names


def shuffled_cases(dataset: Dataset, seed: int) -> list[Case]:
    """All labelled cases in an order that depends on their names and the seed alone."""
    cases = [dataset.labelled[name] for name in sorted(dataset.labelled)]
    random.Random(seed).shuffle(cases)
    return cases


def sample_templates(dataset: Dataset, shots: int, *, seed: int = 0) -> list[Case]:
    """Draw templates: the first shuffled cases that hold all labels, else those that add most labels.

    Label maps are read until enough cases with all labels are found.

    Raises:
        FewshotError: fewer labelled cases than shots.
    """
    order = shuffled_cases(dataset, seed)
    if not 1 <= shots <= len(order):
        raise FewshotError(
            f"{shots} templates cannot be drawn from {dataset.folder}: it has {len(order)} labelled cases."
        )
    held: dict[Case, set[int]] = {}
    full: list[Case] = []
    for case in order:
        held[case] = set(np.unique(dataset.label_map(case, dataset.volume(case))).tolist()) - {0}
        full += [case] if len(held[case]) == len(dataset.labels) else []
        if len(full) == shots:
            return full
    drawn: list[Case] = []
    seen: set[int] = set()
    for _ in range(shots):
        rest = [case for case in order if case not in drawn]
        drawn.append(max(rest, key=lambda case: (len(held[case] - seen), len(held[case]))))
        seen |= held[drawn[-1]]
    return drawn


def read_templates(dataset: Dataset, cases: Sequence[Case]) -> tuple[list[Template], list[str]]:
    """Read the templates, with the names that at least one of them holds.

    Returns:
        The templates, and the names that none of them holds: nothing can be learned about those.
    """
    templates = [dataset.template(case) for case in cases]
    held = set(label_names(templates))
    names = {name: value for name, value in dataset.labels.items() if name in held}
    return (
        [replace(template, names=names) for template in templates],
        [name for name in dataset.labels if name not in held],
    )
