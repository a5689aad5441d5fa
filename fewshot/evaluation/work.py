"""The work of an evaluation: fit, predict and score, one seed after the other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.evaluation.base import FAILURES, Circumstances, FittingWork, since
from fewshot.evaluation.methods import Method
from fewshot.evaluation.metrics import confusion, label_scores
from fewshot.evaluation.refiners import Refinement, method_name
from fewshot.evaluation.rounds import Round, Support, digests, read_support, slice_axis
from fewshot.evaluation.store import ResultStore, prediction_path
from fewshot.evaluation.tally import Tally
from fewshot.prediction import Prediction
from fewshot.progress import Progress
from fewshot.volumes import SliceSpec, Volume, write_labels


@dataclass(frozen=True)
class _Study:
    """A case that has been read."""

    case: Case
    volume: Volume
    truth: np.ndarray
    seconds: float
    notes: tuple[str, ...]


class Work(FittingWork[Method]):
    """Does what the store lacks.

    Args:
        dataset: the cases.
        store: where results go.
        shared: what all methods share.
        methods: what is evaluated.
        refiners: what follows each prediction.
        rounds: all seeds, for the totals.
        slices: labelled slices that are kept of every template, None for all.
        progress: told the stages "features", "train" and "predict".
    """

    def __init__(
        self,
        dataset: Dataset,
        store: ResultStore,
        shared: Circumstances,
        methods: Sequence[Method],
        refiners: Iterable[Refinement],
        rounds: Sequence[Round],
        slices: int | None,
        progress: Progress,
    ) -> None:
        self.dataset = dataset
        self.refiners = list(refiners)
        self.slices = slices
        featured = any(method.uses_features for method in methods)
        tally = Tally(
            progress,
            {
                "features": sum(len(of.templates) + len(of.queries) for of in rounds) if featured else 0,
                "train": len(rounds) * len(methods),
                "predict": sum(len(of.queries) for of in rounds) * len(methods) * len(self.refiners),
            },
        )
        super().__init__(store, shared, methods, tally)
        self.feature_seconds = _known_feature_seconds(store)

    def do(self, of: Round) -> None:
        """Fit and predict what is missing of one seed."""
        units = len(self.methods) * len(self.refiners)
        try:
            support = read_support(self.dataset, of, self.shared, self.slices)
        except FAILURES as error:
            self.fail(f"seed-{of.seed}", error)
            self.skip(len(of.templates) + len(of.queries))
            self.tally.add("train", len(self.methods))
            self.tally.add("predict", units * len(of.queries))
            return
        self.store.begin(support.run)
        for name, notes in support.notes.items():
            self.store.note(name, notes)
        self._forget_changed(of.seed)
        ready = self._ready(of, support)
        todo = {case: self._missing(of.seed, case, ready) for case in of.queries}
        left = sum(len(names) for missing in todo.values() for names in missing.values())
        self.tally.add("predict", units * len(todo) - left)
        needed = {method for missing in todo.values() for method in missing}
        fitted = self.fit_all(
            of.seed, support.templates, [method for method in self.methods if method in needed]
        )
        for case, missing in todo.items():
            self._case(of, case, support, {method: missing[method] for method in missing if method in fitted})
            self.tally.add("predict", sum(len(missing[method]) for method in missing if method not in fitted))

    def _forget_changed(self, seed: int) -> None:
        """Drop the rows of baselines whose weights are no longer what they were."""
        for method in self.methods:
            known = self.store.model(seed, method.name)
            identity = method.identity() if known else None
            if known and identity is not None and identity != known["identity"]:
                self.store.forget(seed, method.name)

    def _ready(self, of: Round, support: Support) -> list[Refinement]:
        """The refinements that know the templates of a seed, if they are needed; what fails is named and left out."""
        needed = {
            refiner
            for case in of.queries
            for missing in self._missing(of.seed, case, self.refiners).values()
            for refiner in missing
        }
        ready = []
        for refiner in self.refiners:
            try:
                if refiner in needed:
                    refiner.remember(support.templates)
                ready.append(refiner)
            except FAILURES as error:
                self.fail(f"seed-{of.seed} {refiner.name}", error)
        return ready

    def _missing(
        self, seed: int, case: Case, refiners: Sequence[Refinement]
    ) -> dict[Method, list[Refinement]]:
        """The refinements of each method that have no rows for a case yet."""
        missing = {
            method: [
                refiner
                for refiner in refiners
                if not self.store.has((seed, case.name, method.name, refiner.name))
            ]
            for method in self.methods
        }
        return {method: of for method, of in missing.items() if of}

    def _case(self, of: Round, case: Case, support: Support, missing: dict[Method, list[Refinement]]) -> None:
        """Predict and score one case: read once, features computed once, then every method on them."""
        try:
            study = self._read(case) if missing else None
        except FAILURES as error:
            self.fail(case.name, error)
            study = None
        if study:
            self.store.note(case.name, study.notes)
        for method, refiners in missing.items():
            left = len(refiners)
            if study:
                try:
                    for unit in self._predictions(of, study, support, method, refiners):
                        left -= unit
                        self.tally.add("predict")
                except FAILURES as error:
                    self.fail(case.name, error, method.name)
            self.tally.add("predict", left)
        self.skip(1)

    def _read(self, case: Case) -> _Study:
        start = time.perf_counter()
        volume = self.dataset.volume(case)
        truth, notes = self.dataset.read_labels(case, volume)
        return _Study(case, volume, truth, since(start), (*volume.notes, *notes))

    def _predictions(
        self, of: Round, study: _Study, support: Support, method: Method, refiners: Sequence[Refinement]
    ) -> Iterable[int]:
        """Predict once, then refine and note with every refiner; yields 1 after each."""
        spec = method.slicing()
        features = self.features(study.volume, spec) if spec else None
        start = time.perf_counter()
        share = 1.0 if refiners[0].refiner is None else 0.5  # the first unit is for predicting and refining
        found = method.predict(study.volume, progress=self.tally.within("predict", share=share))
        seconds = since(start)
        timing = {
            "read": study.seconds,
            "slices": found.timings.get("slices") if spec else None,
            "features": features,
            "atlas": found.timings.get("atlas"),
            "adapter_seconds": found.timings["adapter"] if spec else seconds,
            "components": found.timings.get("components") if spec else None,
        }
        stages = [value for value in timing.values() if value is not None]
        for number, refiner in enumerate(refiners):
            progress = self.tally.within("predict", start=0.0 if number else 1 - share)
            start = time.perf_counter()
            try:
                refined, record = refiner.apply(
                    study.volume, found, spec=support.spec, seed=of.seed, progress=progress
                )
                extra = since(start)
                total = None if spec and features is None else round(sum(stages) + extra, 3)
                self._note(
                    (of.seed, study.case.name, method.name, refiner.name),
                    study,
                    support,
                    refined,
                    timing | {"refine_seconds": extra, "total": total, "refinement": record},
                    round(seconds + extra, 3),
                )
            except FAILURES as error:
                self.fail(study.case.name, error, method_name(method.name, refiner.name))
            yield 1

    def _note(
        self,
        unit: tuple[int, str, str, str],
        study: _Study,
        support: Support,
        found: Prediction,
        timing: dict[str, Any],
        seconds: float,
    ) -> None:
        """Score and keep one prediction."""
        seed, case, adapter, refine = unit
        volume = study.volume
        scores = label_scores(
            study.truth,
            found.labels,
            support.labels,
            affine=volume.affine,
            slice_axis=slice_axis(volume, support.plane),
            calibrated=volume.calibrated,
            probabilities=found.probabilities,
        )
        path = prediction_path(self.store.folder, method_name(adapter, refine), case, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, found.labels, volume)
        self.store.add(
            unit,
            rows=[{"label": label, **asdict(of), "seconds": seconds} for label, of in scores.items()],
            timing=timing,
            voxels=confusion(study.truth, found.labels, self.dataset.labels),
            digests={case: digests(volume, study.truth)},
        )


def _known_feature_seconds(store: ResultStore) -> dict[tuple[str, SliceSpec], float]:
    """What a run that was interrupted has measured."""
    known = {}
    for timing in store.timings:
        model = store.model(timing["seed"], timing["adapter"])
        if model and model["spec"] and timing["features"] is not None:
            known[timing["case"], SliceSpec.from_dict(model["spec"])] = timing["features"]
    return known
