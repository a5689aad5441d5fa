"""One seed of an evaluation: which cases are templates, which are predicted, and how the templates are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.base import Circumstances
from fewshot.evaluation.template_slices import keep_slices
from fewshot.evaluation.templates import only_held, sample_templates, shuffled_cases
from fewshot.support import Template
from fewshot.volumes import SliceSpec, Volume
from fewshot.volumes.planes import in_plane

CASES_SEED = 0
"""The part of a dataset that `max_cases` leaves is the same for every seed, so that patients stay comparable."""


@dataclass(frozen=True)
class Round:
    """The cases of one seed."""

    seed: int
    templates: list[Case]
    queries: list[Case]


@dataclass(frozen=True)
class Support:
    """The templates of one seed as the methods see them.

    Attributes:
        templates: labelled volumes, named by the labels that they hold.
        spec: how they, and what is predicted, are cut into slices.
        run: what results.json says about them.
        notes: case -> what reading it had to decide.
    """

    templates: list[Template]
    spec: SliceSpec
    run: dict[str, Any]
    notes: dict[str, tuple[str, ...]]

    @property
    def plane(self) -> str:
        """In which the slices lie."""
        return self.spec.plane

    @property
    def labels(self) -> dict[str, int]:
        """Name -> value of the labels that can be learned."""
        return dict(self.templates[0].names)


def draw_rounds(
    dataset: Dataset,
    seeds: Sequence[int],
    *,
    shots: int,
    templates: Sequence[str] | None,
    max_cases: int | None,
    draw: Callable[[Dataset, int, int], list[Case]] = sample_templates,
) -> list[Round]:
    """Draw the templates of every seed; what a seed gives does not depend on the others.

    Args:
        dataset: the cases.
        seeds: of all rounds.
        shots: how many templates to draw.
        templates: case names instead of drawn ones.
        max_cases: at most so many are predicted.
        draw: dataset, shots and seed -> templates.

    Raises:
        FewshotError: no seed or one below 0, too few labelled cases, or an unknown template.
    """
    if not seeds or min(seeds) < 0:
        raise FewshotError(f"Seeds are whole numbers from 0 on, not '{', '.join(map(str, seeds))}'.")
    order = shuffled_cases(dataset, CASES_SEED)
    rounds = []
    for seed in dict.fromkeys(seeds):
        drawn = dataset.choose(templates) if templates else draw(dataset, shots, seed)
        queries = [case for case in order if case not in drawn][:max_cases]
        if not queries:
            raise FewshotError(
                f"{dataset.folder} has no labelled case besides its {len(drawn)} templates: give fewer."
            )
        rounds.append(Round(seed, drawn, queries))
    return rounds


def read_support(dataset: Dataset, of: Round, shared: Circumstances, slices: int | None) -> Support:
    """Read the templates of a seed.

    Args:
        dataset: where they lie.
        of: which they are.
        shared: says in which plane slices lie.
        slices: how many labelled slices of each template are kept; all if None.

    Raises:
        FewshotError: a template cannot be read, or holds no label.
    """
    templates = [dataset.template(case) for case in of.templates]
    notes = {template.volume.name: template.volume.notes for template in templates}
    spec = shared.resolve([template.volume for template in templates])
    kept: dict[str, list[int]] | None = None
    if slices is not None:
        kept = {}
        for index, template in enumerate(templates):
            name = template.volume.name
            templates[index], kept[name] = keep_slices(
                template, slices, slice_axis(template.volume, spec.plane)
            )
    templates, untested = only_held(templates, dataset.labels)
    run = {
        "seed": of.seed,
        "templates": [case.name for case in of.templates],
        "template_slices": kept,
        "labels_without_template": untested,
        "digests": {
            template.volume.name: digests(template.volume, template.labels) for template in templates
        },
    }
    return Support(templates, spec, run, notes)


def digests(volume: Volume, labels: np.ndarray) -> dict[str, str]:
    """Names of an image's voxels and of its label map's, the same for every file that holds them."""
    of_labels = hashlib.blake2b(np.ascontiguousarray(labels).data, digest_size=16).hexdigest()
    return {"image": volume.digest, "labels": of_labels}


def slice_axis(volume: Volume, plane: str) -> int:
    """The array axis along which the slices of a plane are stacked."""
    return ({0, 1, 2} - {*in_plane(volume.affine, plane)}).pop()
