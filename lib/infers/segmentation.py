"""Segmentation of a whole volume with a fitted adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from typing_extensions import override

from lib.configs.settings import COMPONENTS, PROMPTS, REFINERS
from lib.infers.task import VolumeTask, choices, chosen
from lib.models import LATEST, ModelSource
from lib.project import Project
from lib.refining import Refinement

if TYPE_CHECKING:
    from fewshot.model import Model
    from fewshot.prediction import Prediction


class Segmentation(VolumeTask):
    """Finds a model's labels and refines them.

    The result's parameters hold `label_names`, the whole dictionary with values 1..N, and what the engine
    says: `confidence`, `empty_slices`, `timings`, `provenance` (with `refine` where labels were refined), `notes`.

    Args:
        models: where fitted adapters come from.
        project: what all tasks share.
        description: for the viewer's user.
    """

    def __init__(self, models: ModelSource, project: Project, *, description: str) -> None:
        self.models = models
        super().__init__(project, kind=InferType.SEGMENTATION, description=description)
        settings = project.settings
        self._config["components"] = choices(settings.components, COMPONENTS)
        self._config["refine"] = choices(settings.refine, REFINERS)
        self._config["prompts"] = choices(PROMPTS[0], PROMPTS)

    @override
    def require(self) -> None:
        self.models.require()

    @override
    def get_path(self, validate: bool = True) -> str | None:
        """The latest adapter's file, or the one that an uploaded adapter becomes."""
        file = self.models.file(new=not validate)
        return str(file) if file else None

    @override
    def config(self) -> dict[str, Any]:
        """Options for viewers: lists whose first item is the default, because Slicer sends that one."""
        versions = self.models.versions()
        return {**self._config, **({"version": [LATEST, *versions]} if versions else {})}

    @override
    def info(self) -> dict[str, Any]:
        """As of every task; no labels while all are landmarks: Slicer runs the first model that has the first label."""
        told = dict(super().info())
        return {**told, "labels": {}} if self.project.landmarks.only() else told

    @override
    def run_inferer(
        self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu"
    ) -> dict[str, Any]:
        """Predict with the engine; the label map goes to `pred`."""
        settings = self.project.settings
        model = self.models.load(chosen(data.get("version"), LATEST), device=device)
        prediction = self.project.engine.predict(
            data["volume"],
            model,
            components=chosen(data.get("components"), settings.components),
            refine=Refinement(
                chosen(data.get("refine"), settings.refine), chosen(data.get("prompts"), PROMPTS[0])
            ),
            device=device,
            progress=self.progress(data),
        )
        data["pred"], data["result"] = self._in_app_values(prediction, model)
        return data

    def _in_app_values(self, prediction: Prediction, model: Model) -> tuple[np.ndarray, dict[str, Any]]:
        """The prediction with the names and values that labels have in this app today."""
        self.project.labels.add(name for name in model.labels if self.project.labels.current(name) is None)
        lookup = np.zeros(max(model.labels.values()) + 1, np.uint8)
        result = prediction.to_json()
        for name, value in model.labels.items():
            now, lookup[value] = self.project.labels.current(name) or (name, 0)
            if now != name:
                for part in ("confidence", "empty_slices"):
                    result[part][now] = result[part].pop(name)
        return lookup[prediction.labels], result
