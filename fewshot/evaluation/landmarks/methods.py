"""Landmark models and the baseline behind one small interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewshot.adapters import ADAPTERS
from fewshot.errors import FewshotError
from fewshot.evaluation.base import Circumstances, Fitted, Record
from fewshot.landmarks import (
    LandmarkModel,
    LandmarkPrediction,
    LandmarkTemplate,
    find_landmarks,
    fit_landmarks,
    load_landmark_model,
)
from fewshot.landmarks.registered import NAME, RegisteredTemplates
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, Volume

BASELINES = (NAME,)


class LandmarkMethod(Fitted[LandmarkTemplate]):
    """Something that is fitted on templates and finds their landmarks in other volumes."""

    @abstractmethod
    def find(self, volume: Volume, *, progress: Progress = silent) -> LandmarkPrediction:
        """Find the landmarks in a volume."""


class ModelMethod(LandmarkMethod):
    """A landmark model on features from the bank."""

    uses_features = True
    model: LandmarkModel

    def restore(self, path: Path, record: Record) -> bool:
        with suppress(FewshotError):  # lost or damaged: fitted again
            self.model = load_landmark_model(path)
            return self.model.digest == record["digest"]
        return False

    def fit(
        self, templates: Sequence[LandmarkTemplate], *, seed: int, path: Path, progress: Progress = silent
    ) -> Record:
        self.model = fit_landmarks(
            templates,
            backbone=self.shared.backbone,
            bank=self.shared.bank,
            method=self.name,
            options=self.options,
            spec=self.shared.spec,
            seed=seed,
            progress=progress,
        )
        self.model.save(path)
        spec = self.slicing()
        return {
            "scores": self.model.scores,
            "digest": self.model.digest,
            "spec": spec.to_dict() if spec else None,
            "provenance": {"radius_mm": round(self.model.radius, 3)},
            "note": None,
        }

    def find(self, volume: Volume, *, progress: Progress = silent) -> LandmarkPrediction:
        return find_landmarks(
            volume, self.model, backbone=self.shared.backbone, bank=self.shared.bank, progress=progress
        )

    def slicing(self) -> SliceSpec | None:
        return self.model.regions.spec


class RegistrationMethod(LandmarkMethod):
    """Registration of the templates; made anew for every seed and never kept in a file."""

    uses_features = False
    fitted: RegisteredTemplates

    def restore(self, path: Path, record: Record) -> bool:  # noqa: ARG002
        return False

    def fit(
        self,
        templates: Sequence[LandmarkTemplate],
        *,
        seed: int,  # noqa: ARG002
        path: Path,  # noqa: ARG002
        progress: Progress = silent,
    ) -> Record:
        self.fitted = RegisteredTemplates.of(templates, spec=self.shared.spec)
        progress("train", 1, 1)
        return {"scores": {}, "digest": None, "spec": None, "provenance": {}, "note": None}

    def find(self, volume: Volume, *, progress: Progress = silent) -> LandmarkPrediction:
        found = self.fitted.find(volume)
        progress("predict", 1, 1)
        return found


def create_methods(
    adapters: Sequence[str],
    baselines: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    shared: Circumstances,
) -> list[LandmarkMethod]:
    """All methods of an evaluation, not fitted, in order.

    Raises:
        FewshotError: an unknown name, an option for a baseline or a stranger, or no method at all.
    """
    for kind, known, wanted in (("adapter", [*ADAPTERS], adapters), ("baseline", [*BASELINES], baselines)):
        if unknown := [name for name in wanted if name not in known]:
            raise FewshotError(
                f"There is no {kind} {', '.join(unknown)} for landmarks: choose among {', '.join(known)}."
            )
    if not [*adapters, *baselines]:
        raise FewshotError(
            f"There is no adapter or baseline to evaluate: choose among {', '.join([*ADAPTERS, *BASELINES])}."
        )
    if strangers := [name for name in options if name not in adapters]:
        raise FewshotError(
            f"Options were given for {', '.join(strangers)}, which has none or is not evaluated; leave them out."
        )
    return [
        *(ModelMethod(name, options.get(name, {}), shared) for name in dict.fromkeys(adapters)),
        *(RegistrationMethod(name, {}, shared) for name in dict.fromkeys(baselines)),
    ]
