"""Made-up baselines: cheap, and each with one peculiarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fewshot.baselines.base import Baseline
from fewshot.errors import FewshotError
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import number
from fewshot.support import Template
from fewshot.volumes import Volume


class Copy(Baseline):
    """The label map of a template, drawn by the seed, on every volume of its shape."""

    name: ClassVar[str] = "copy"
    description: ClassVar[str] = "the template's label map"
    source: ClassVar[str] = "nobody"
    weights: ClassVar[str] = "first"
    fitted: ClassVar[list[tuple[int, list[str]]]] = []
    seen: ClassVar[list[Template]] = []

    @dataclass(frozen=True)
    class Options:
        shift: int = 1
        certainty: float = number(0.9, above=0, below=1)

    def provenance(self) -> dict[str, Any]:
        return {"weights": self.weights}

    @property
    def note(self) -> str | None:
        return "it copies"

    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> dict[str, float]:
        self.fitted.append((seed, [template.volume.name for template in templates]))
        self.seen[:] = templates
        progress("train", 1, 2, loss=0.5)
        self.values = list(labels.values())
        self.labels = np.roll(templates[seed % len(templates)].labels, self.options.shift, axis=0)
        return {"steps": 2.0}

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        progress("predict", 1, 2)
        certain = self.options.certainty
        maps = [np.where(self.labels == value, certain, (1 - certain) / 2) for value in [0, *self.values]]
        return Prediction(
            labels=self.labels,
            names={str(value): value for value in self.values},
            confidence={},
            empty_slices={},
            timings={"total": 0.0},
            provenance={},
            notes=[],
            probabilities=np.stack(maps).astype(np.float16),
        )


class Broken(Copy):
    """Cannot be fitted."""

    name: ClassVar[str] = "broken"

    def fit(self, *_: Any, **__: Any) -> dict[str, float]:
        raise FewshotError("Its weights are not here; fetch them.")


class Picky(Copy):
    """Fails on one case, the way that a library does."""

    name: ClassVar[str] = "picky"

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        if volume.name == "cid":
            raise RuntimeError("ITK ERROR: too few points")
        return super().predict(volume, progress=progress)


NAMES = {"copy": "Copy", "broken": "Broken", "picky": "Picky"}
BASELINES = {name: f"tests.unit.evaluation.fakes:{kind}" for name, kind in NAMES.items()} | {
    "absent": "no_such_package_anywhere:Thing"
}
