"""Training of a landmark model on everything that was marked."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, name_to_device
from typing_extensions import override

from lib.landmarks import computing
from lib.landmarks.labelled import NO_LANDMARK
from lib.models import PublishedLandmarks
from lib.project import Project
from lib.requested import millimetres
from lib.trainers.base import WorkspaceTrainer, option, whole_number
from lib.trainers.stats import TrainingStats

logger = logging.getLogger(__name__)

METHODS = ("auto", "contrastive", "classification", "basic")
"""The engine's own names, the default first, repeated to import it later."""


class LandmarkTrainer(WorkspaceTrainer):
    """Learns all landmarks of the workspace in one model, and publishes it.

    Args:
        models: where the model is published.
        project: what all tasks share.
        description: for the viewer's user.
    """

    def __init__(self, models: PublishedLandmarks, project: Project, *, description: str) -> None:
        super().__init__(models.name, project, description)
        self.models = models

    @override
    def config(self) -> dict[str, Any]:
        """Options for viewers; the first of a list is the default, and 0 leaves a number to the method."""
        return {
            "method": list(METHODS),
            "max_epochs": self.project.settings.max_epochs or 0,
            "radius": 0.0,
            "device": device_list(),
        }

    @override
    def check(self, request: dict[str, Any]) -> None:
        """Refuse a training without landmarks or with unusable options."""
        self._method(request)
        self._epochs(request)
        millimetres(request, "radius")
        self.project.landmarks.require()

    @override
    def has_templates(self) -> bool:
        return self.project.landmarks.exist()

    @override
    def _train(self, request: dict[str, Any], stats: TrainingStats) -> dict[str, Any]:
        from fewshot.adapters import ADAPTERS

        templates = self.project.landmarks.templates()
        stats.note(templates=templates.images, **templates.told())
        if not templates:
            reasons = " ".join(templates.left_out.values())
            raise HTTPException(409, f"{NO_LANDMARK} What there is was left out: {reasons}")
        method, epochs = self._method(request), self._epochs(request)
        usual = getattr(ADAPTERS[method].Options(), "epochs", 1)
        learns = hasattr(ADAPTERS[method].Options(), "epochs")
        stats.note(total_epochs=(epochs or usual) if learns else usual)
        model = computing.fit(
            self.project.engine,
            templates,
            method=method,
            options={"epochs": epochs} if epochs and learns else None,
            radius=millimetres(request, "radius"),
            device=name_to_device(request.get("device") or None),
            progress=stats.progress,
        )
        if unshown := self.project.labels.add_what_fits(model.names):
            logger.warning("There is no room for %d landmarks in label maps.", len(unshown))
        version = self.models.publish(model)
        logger.info("Published %s, version %s, on %d templates", self.name, version, len(templates))
        return {
            "version": version,
            "labels": model.names,
            "radius": round(model.radius, 3),
            "scores": model.scores,
        }

    def _method(self, request: dict[str, Any]) -> str:
        method = option(request, "method", METHODS[0])
        if method not in METHODS:
            raise HTTPException(422, f"method is {method!r}: choose from {', '.join(METHODS)}.")
        return str(method)

    def _epochs(self, request: dict[str, Any]) -> int:
        return whole_number(request, "max_epochs", self.config()["max_epochs"], least=0)
