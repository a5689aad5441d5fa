"""One seed of an evaluation of landmarks: which cases are templates, and which are searched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.dataset import Case, Dataset
from fewshot.evaluation.rounds import Round
from fewshot.evaluation.templates import draw_cases
from fewshot.landmarks import LandmarkTemplate, Mark, landmark_names
from fewshot.volumes import Volume


@dataclass(frozen=True)
class Support:
    """The templates of one seed.

    Attributes:
        templates: volumes with their landmarks.
        names: the landmarks that can be learned.
        run: what results.json says about them.
    """

    templates: list[LandmarkTemplate]
    names: list[str]
    run: dict[str, Any]


def sample_templates(dataset: Dataset, shots: int, seed: int = 0) -> list[Case]:
    """Draw templates: the first shuffled cases that hold all landmarks, else those that add most landmarks.

    Raises:
        FewshotError: fewer cases that can be read and hold a landmark than shots.
    """

    def held(case: Case) -> frozenset[str]:
        return frozenset(dataset.landmark_template(case).marks)

    return draw_cases(dataset, shots, seed=seed, held=held, most=len(dataset.landmarks))


def read_support(dataset: Dataset, of: Round) -> Support:
    """Read the templates of a seed.

    Raises:
        FewshotError: a template cannot be read, or holds no landmark.
    """
    templates = [dataset.landmark_template(case) for case in of.templates]
    held = landmark_names(templates)
    names = [name for name in dataset.landmarks if name in held]
    run = {
        "seed": of.seed,
        "templates": [case.name for case in of.templates],
        "labels_without_template": [name for name in dataset.landmarks if name not in held],
        "digests": {
            template.volume.name: digests(template.volume, template.marks, template.absent)
            for template in templates
        },
    }
    return Support(templates, names, run)


def digests(volume: Volume, marks: Mapping[str, Mark], absent: frozenset[str]) -> dict[str, str]:
    """Names of an image's voxels and of its landmarks."""
    content = [[name, *mark.point, mark.spread] for name, mark in sorted(marks.items())]
    said = json.dumps([content, sorted(absent)])
    return {
        "image": volume.digest,
        "landmarks": hashlib.blake2b(said.encode(), digest_size=16).hexdigest(),
    }
