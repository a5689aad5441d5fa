"""The work of an evaluation of landmarks: fit, find and score, one seed after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot.dataset import Case, Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.base import FAILURES, Circumstances, FittingWork, since
from fewshot.evaluation.landmarks.methods import LandmarkMethod
from fewshot.evaluation.landmarks.metrics import landmark_scores
from fewshot.evaluation.landmarks.rounds import Support, digests, read_support
from fewshot.evaluation.landmarks.store import LandmarkStore
from fewshot.evaluation.landmarks.views import WHOLE, View, views_of
from fewshot.evaluation.rounds import Round
from fewshot.evaluation.tally import Tally
from fewshot.landmarks.markups import write_markups
from fewshot.progress import Progress

Missing = Mapping[str, Sequence[LandmarkMethod]]
"""View -> the methods whose rows it lacks."""


@dataclass(frozen=True, eq=False)
class _Study:
    """A case that has been read."""

    case: Case
    views: dict[str, View]
    digests: dict[str, str]
    seconds: float


class Work(FittingWork[LandmarkMethod]):
    """Does what the store lacks.

    Args:
        dataset: the cases.
        store: where results go.
        shared: what all methods share.
        methods: what is evaluated.
        views: what is predicted of each case.
        rounds: all seeds, for the totals.
        progress: told the stages "features", "train" and "predict".
    """

    def __init__(
        self,
        dataset: Dataset,
        store: LandmarkStore,
        shared: Circumstances,
        methods: Sequence[LandmarkMethod],
        views: Sequence[str],
        rounds: Sequence[Round],
        progress: Progress,
    ) -> None:
        self.dataset = dataset
        self.views = list(views)
        featured = any(method.uses_features for method in methods)
        tally = Tally(
            progress,
            {
                "features": sum(len(of.templates) + len(of.queries) * len(views) for of in rounds)
                if featured
                else 0,
                "train": len(rounds) * len(methods),
                "predict": sum(len(of.queries) for of in rounds) * len(methods) * len(views),
            },
        )
        super().__init__(store, shared, methods, tally)

    def do(self, of: Round) -> None:
        """Fit and find what is missing of one seed."""
        units = len(self.methods) * len(self.views)
        try:
            support = read_support(self.dataset, of)
        except FAILURES as error:
            self.fail(f"seed-{of.seed}", error)
            self.skip(len(of.templates) + len(of.queries) * len(self.views))
            self.tally.add("train", len(self.methods))
            self.tally.add("predict", units * len(of.queries))
            return
        self.store.begin(support.run)
        for template in support.templates:
            self.store.note(template.volume.name, template.volume.notes)
        todo = {case: self._missing(of.seed, case) for case in of.queries}
        left = sum(len(methods) for missing in todo.values() for methods in missing.values())
        self.tally.add("predict", units * len(todo) - left)
        needed = {method for missing in todo.values() for methods in missing.values() for method in methods}
        fitted = self.fit_all(
            of.seed, support.templates, [method for method in self.methods if method in needed]
        )
        for case, missing in todo.items():
            ready = {
                view: [method for method in methods if method in fitted] for view, methods in missing.items()
            }
            self._case(of, case, support, {view: methods for view, methods in ready.items() if methods})
            self.tally.add(
                "predict", sum(len(missing[view]) - len(methods) for view, methods in ready.items())
            )

    def _missing(self, seed: int, case: Case) -> Missing:
        missing = {
            view: [
                method for method in self.methods if not self.store.has((seed, case.name, method.name, view))
            ]
            for view in self.views
        }
        return {view: methods for view, methods in missing.items() if methods}

    def _case(self, of: Round, case: Case, support: Support, missing: Missing) -> None:
        """Read a case once, and search each view with every method that lacks it."""
        study = None
        try:
            study = self._read(case) if missing else None
        except FAILURES as error:
            self.fail(case.name, error)
        for view, methods in missing.items():
            seen = study.views.get(view) if study else None
            for method in methods:
                try:
                    if study and seen:
                        self._find(of, study, seen, support, method)
                except FAILURES as error:
                    self.fail(case.name, error, method.name)
                self.tally.add("predict")
        self.skip(len(self.views))

    def _read(self, case: Case) -> _Study:
        start = time.perf_counter()
        volume = self.dataset.volume(case)
        marks, absent = self.dataset.read_marks(case, volume)
        seconds = since(start)
        self.store.note(case.name, volume.notes)
        if not (views := views_of(volume, marks, absent)):
            raise FewshotError(
                f"{case.landmarks or case.label} tells of no landmark where it is, nor that it is absent."
            )
        return _Study(case, views, digests(volume, marks, absent), seconds)

    def _find(self, of: Round, study: _Study, view: View, support: Support, method: LandmarkMethod) -> None:
        """Search, score and keep one view of a case with one method."""
        spec = method.slicing()
        features = self.features(view.volume, spec) if spec else None
        start = time.perf_counter()
        found = method.find(view.volume, progress=self.tally.within("predict"))
        seconds = since(start)
        if view.name == WHOLE:
            path = landmarks_path(self.store.folder, method.name, study.case.name, of.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_markups(path, found)
        total = None if spec and features is None else round(study.seconds + (features or 0) + seconds, 3)
        scores = landmark_scores(view, found, support.names)
        self.store.add(
            (of.seed, study.case.name, method.name, view.name),
            rows=[
                {"landmark": name, **_plain(asdict(of)), "seconds": seconds} for name, of in scores.items()
            ],
            timing={"read": study.seconds, "features": features, "find": seconds, "total": total},
            voxels=None,
            digests={study.case.name: study.digests},
        )


def landmarks_path(folder: Path, method: str, case: str, seed: int) -> Path:
    """Where an evaluation keeps the landmarks that were found in a case."""
    return folder / f"seed-{seed}" / "predictions" / method / f"{case}.mrk.json"


def _plain(score: dict[str, Any]) -> dict[str, Any]:
    """As results.json gives it back."""
    return {
        key: [round(float(of), 4) for of in value] if isinstance(value, tuple) else value
        for key, value in score.items()
    }
