"""What the evaluations of labels and of landmarks have in common: methods that are fitted, and the work around them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from fewshot.errors import FewshotError
from fewshot.evaluation.store import ResultStore, model_path
from fewshot.evaluation.tally import Tally
from fewshot.features import Backbone, FeatureBank
from fewshot.pipeline import resolve, warm
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, Volume

FAILURES = (FewshotError, RuntimeError, ValueError, MemoryError)
"""What may go wrong with one case or method (ITK and torch raise RuntimeError) while the others go on."""

Record = dict[str, Any]
"""What results.json says about a fitted method: "scores", "digest", "spec", "provenance", "note"."""


@dataclass(frozen=True)
class Circumstances:
    """What all methods of an evaluation share."""

    backbone: Backbone
    bank: FeatureBank
    spec: SliceSpec
    components: str
    device: str = "auto"

    def resolve(self, volumes: Sequence[Volume]) -> SliceSpec:
        """How these templates say that volumes are to be cut."""
        return resolve(self.spec, volumes, self.backbone)

    def warm(self, volume: Volume, spec: SliceSpec, progress: Progress) -> bool:
        """Have the features of a volume in the bank; whether they had to be computed."""
        return warm(volume, spec, backbone=self.backbone, bank=self.bank, progress=progress).fresh


class Templated(Protocol):
    """A template: whatever else is known of it, it has a volume."""

    @property
    def volume(self) -> Volume: ...


Of = TypeVar("Of", bound=Templated)


class Fitted(ABC, Generic[Of]):
    """Something that is fitted on templates.

    Args:
        name: an adapter or a baseline.
        options: its settings that differ from the defaults.
        shared: the evaluation's circumstances.
    """

    uses_features: ClassVar[bool]

    def __init__(self, name: str, options: Mapping[str, Any], shared: Circumstances) -> None:
        self.name = name
        self.options = dict(options)
        self.shared = shared

    @abstractmethod
    def restore(self, path: Path, record: Record) -> bool:
        """Whether it could be read back as it was when the record was made."""

    @abstractmethod
    def fit(self, templates: Sequence[Of], *, seed: int, path: Path, progress: Progress = silent) -> Record:
        """Learn from the templates; `path` is where a model file may be kept. Tells what `add_model` notes."""

    def slicing(self) -> SliceSpec | None:
        """Of which slices it wants features; None if it wants none."""
        return None


Method = TypeVar("Method", bound=Fitted[Any])


class FittingWork(Generic[Method]):
    """Fits what an evaluation needs, and keeps count.

    Args:
        store: where results go.
        shared: what all methods share.
        methods: what is evaluated.
        tally: of what is done.
    """

    def __init__(
        self, store: ResultStore, shared: Circumstances, methods: Sequence[Method], tally: Tally
    ) -> None:
        self.store = store
        self.shared = shared
        self.methods = list(methods)
        self.tally = tally
        self.feature_seconds: dict[tuple[str, SliceSpec], float] = {}

    def fit_all(self, seed: int, templates: Sequence[Templated], methods: Sequence[Method]) -> set[Method]:
        """Fit what is needed, or take it as an interrupted run left it; what fails is named and left out."""
        fitted: set[Method] = set()
        warm = False
        self.tally.add("train", len(self.methods) - len(methods))
        for method in methods:
            try:
                path = model_path(self.store.folder, method.name, seed)
                record = self.store.model(seed, method.name)
                if record is None or not method.restore(path, record):
                    if method.uses_features and not warm:
                        warm = True
                        self._warm_templates(templates)
                    start = time.perf_counter()
                    record = method.fit(templates, seed=seed, path=path, progress=self.tally.within("train"))
                    self.store.add_model(
                        {"seed": seed, "adapter": method.name, "seconds": since(start), **record}
                    )
                fitted.add(method)
            except FAILURES as error:
                self.fail(f"seed-{seed} {method.name}", error)
            self.tally.add("train")
        if not warm:
            self.skip(len(templates))
        return fitted

    def _warm_templates(self, templates: Sequence[Templated]) -> None:
        """Compute the templates' features, so that the seconds of fitting are of fitting alone."""
        volumes = [template.volume for template in templates]
        spec = self.shared.resolve(volumes)
        left = len(volumes)
        try:
            for volume in volumes:
                self.features(volume, spec)
                self.tally.add("features")
                left -= 1
        except FAILURES:
            self.skip(left)
            raise

    def features(self, volume: Volume, spec: SliceSpec) -> float | None:
        """Have a volume's features in the bank; seconds that this took, None if that was before our time."""
        start = time.perf_counter()
        if self.shared.warm(volume, spec, self.tally.within("features")):
            self.feature_seconds[volume.name, spec] = since(start)
        return self.feature_seconds.get((volume.name, spec))

    def skip(self, volumes: int) -> None:
        """So many volumes need no features any more."""
        if any(method.uses_features for method in self.methods):
            self.tally.add("features", volumes)

    def fail(self, what: str, error: Exception, method: str = "") -> None:
        """Note why something has no rows; to be stopped is no failure."""
        if self.tally.stopped:
            raise error
        reason = str(error) if isinstance(error, FewshotError) else f"{type(error).__name__}: {error}"
        said = f"{method}: {reason}" if method else reason
        before = self.store.failed.get(what)
        self.store.failed[what] = f"{before} {said}" if before and said not in before else before or said


def since(start: float) -> float:
    """Seconds since then, to the millisecond."""
    return round(time.perf_counter() - start, 3)
