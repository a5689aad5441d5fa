"""Adapters and baselines behind one small interface, so that the protocol need not know which is which."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from fewshot.adapters import ADAPTERS
from fewshot.baselines import BASELINES, Baseline, create_baseline
from fewshot.errors import FewshotError
from fewshot.evaluation.base import Circumstances, Fitted, Record
from fewshot.model import Model, load_model
from fewshot.pipeline import PROBABILITY_BYTES, fit, predict, probability_bytes
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import checked_options
from fewshot.support import Template
from fewshot.volumes import SliceSpec, Volume


class Method(Fitted[Template]):
    """Something that is fitted on templates and finds their labels in other volumes."""

    def identity(self) -> Record | None:
        """What its rows depend on besides templates, options, seed and settings; None if that cannot be told."""
        return {}

    @abstractmethod
    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Find the labels in a volume."""


class AdapterMethod(Method):
    """An adapter on features from the bank."""

    uses_features = True
    model: Model

    def restore(self, path: Path, record: Record) -> bool:
        with suppress(FewshotError):  # lost or damaged: fitted again
            self.model = load_model(path)
            return self.model.digest == record["digest"]
        return False

    def fit(
        self, templates: Sequence[Template], *, seed: int, path: Path, progress: Progress = silent
    ) -> Record:
        self.model = fit(
            templates,
            labels=dict(templates[0].names),
            adapter=self.name,
            options=self.options,
            backbone=self.shared.backbone,
            bank=self.shared.bank,
            spec=self.shared.spec,
            seed=seed,
            progress=progress,
        )
        self.model.save(path)
        return {
            "scores": self.model.scores,
            "digest": self.model.digest,
            "spec": self.model.spec.to_dict(),
            "provenance": {},
            "note": None,
            "identity": {},
        }

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        return predict(
            volume,
            self.model,
            backbone=self.shared.backbone,
            bank=self.shared.bank,
            components=self.shared.components,
            probabilities=probability_bytes(volume, self.model) <= PROBABILITY_BYTES,
            progress=progress,
        )

    def slicing(self) -> SliceSpec | None:
        return self.model.spec


class BaselineMethod(Method):
    """A baseline, which sees whole volumes; it is made anew for every seed and never kept in a file."""

    uses_features = False
    baseline: Baseline

    def identity(self) -> Record | None:
        try:
            return _plain(self._create().provenance())
        except FewshotError:
            return None  # fitting it will say why

    def restore(self, path: Path, record: Record) -> bool:  # noqa: ARG002
        return False

    def fit(
        self,
        templates: Sequence[Template],
        *,
        seed: int,
        path: Path,  # noqa: ARG002
        progress: Progress = silent,
    ) -> Record:
        self.baseline = self._create()
        identity = _plain(self.baseline.provenance())
        scores = self.baseline.fit(templates, dict(templates[0].names), seed=seed, progress=progress)
        return {
            "scores": scores,
            "digest": None,
            "spec": None,
            "provenance": _plain(self.baseline.provenance()),
            "note": self.baseline.note,
            "identity": identity,
        }

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        return self.baseline.predict(volume, progress=progress)

    def _create(self) -> Baseline:
        baseline_class(self.name)  # says so if its package is missing
        return create_baseline(self.name, self.options, device=self.shared.device)


def create_methods(
    adapters: Sequence[str],
    baselines: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    shared: Circumstances,
) -> list[Method]:
    """All methods of an evaluation, not fitted, in order.

    Raises:
        FewshotError: an unknown name or option, or no method at all.
    """
    for kind, known, wanted in (("adapter", ADAPTERS, adapters), ("baseline", BASELINES, baselines)):
        if unknown := [name for name in wanted if name not in known]:
            raise FewshotError(f"There is no {kind} {', '.join(unknown)}: choose among {', '.join(known)}.")
    if not [*adapters, *baselines]:
        raise FewshotError(
            f"There is no adapter or baseline to evaluate: choose among {', '.join([*ADAPTERS, *BASELINES])}."
        )
    if strangers := [name for name in options if name not in [*adapters, *baselines]]:
        raise FewshotError(
            f"Options were given for {', '.join(strangers)}, which is not evaluated; leave them out or add it."
        )
    for name in (*adapters, *baselines):
        if kind_of_options := options_of(name):
            kind = "adapter" if name in ADAPTERS else "baseline"
            checked_options(f"{kind} {name}", kind_of_options, dict(options.get(name, {})))
    return [
        *(AdapterMethod(name, options.get(name, {}), shared) for name in dict.fromkeys(adapters)),
        *(BaselineMethod(name, options.get(name, {}), shared) for name in dict.fromkeys(baselines)),
    ]


def options_of(name: str) -> type[Any] | None:
    """The `Options` of an adapter or baseline; None where its package is missing, or there is none of that name."""
    if name in ADAPTERS:
        return ADAPTERS[name].Options
    try:
        return baseline_class(name).Options if name in BASELINES else None
    except FewshotError:
        return None


def baseline_class(name: str) -> type[Baseline]:
    """The class of a baseline.

    Raises:
        FewshotError: a package that it needs is missing.
    """
    module, _, kind = BASELINES[name].partition(":")
    try:
        return getattr(import_module(module), kind)
    except ImportError as error:
        raise FewshotError(f"It needs a package that is not here ({error}): install it.") from error


def _plain(values: Mapping[str, Any]) -> Record:
    """As results.json gives them back."""
    return json.loads(json.dumps(values))
