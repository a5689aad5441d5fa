"""Training of an adapter on everything that was submitted."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, name_to_device
from typing_extensions import override

from lib.models import NO_ORGAN, PublishedModels
from lib.project import Project
from lib.trainers.base import WorkspaceTrainer, whole_number
from lib.trainers.stats import TrainingStats

if TYPE_CHECKING:
    from fewshot.model import Model

logger = logging.getLogger(__name__)

OTHERS = "of other patients: each template was found by the other templates"
SAME = "of other slices of the one template: hopeful for other patients"
UNKNOWN = "too little is labelled to say: label a second study"
"""How the expected Dice coefficient was found, in words for people."""


class AdapterTrainer(WorkspaceTrainer):
    """Fits an adapter on the templates, on a few thousand pixel features in seconds, and publishes it.

    Args:
        models: where the adapter is published.
        project: what all tasks share.
        adapter: the engine's adapter.
        description: for the viewer's user.
    """

    def __init__(self, models: PublishedModels, project: Project, *, adapter: str, description: str) -> None:
        super().__init__(models.name, project, description)
        self.models = models
        self.adapter = adapter

    @cached_property
    def _default(self) -> int:
        """The adapter's own number of epochs; some stop earlier when held-out pixels do not get better."""
        from fewshot.adapters import ADAPTERS

        return int(ADAPTERS[self.adapter].Options().epochs)

    @override
    def config(self) -> dict[str, Any]:
        return {"max_epochs": self.project.settings.max_epochs or self._default, "device": device_list()}

    @override
    def check(self, request: dict[str, Any]) -> None:
        """Refuse a training without templates or with unusable options."""
        self._epochs(request)
        self.project.require_templates()

    @override
    def has_templates(self) -> bool:
        return self.project.landmarks.organ_exists()

    @override
    def _train(self, request: dict[str, Any], stats: TrainingStats) -> dict[str, Any]:
        stats.note(total_epochs=self._epochs(request))
        templates = self.project.templates(self.project.submissions())
        stats.note(templates=templates.images, **templates.told())
        if not templates:
            raise HTTPException(409, NO_ORGAN)
        labels = self.project.drawn_labels(templates)
        model = self.project.engine.fit(
            templates,
            adapter=self.adapter,
            labels=labels,
            options={"epochs": self._epochs(request)},
            device=name_to_device(request.get("device") or None),
            progress=stats.progress,
        )
        version = self.models.publish(model)
        told = expectation(model) if model.atlas else {}
        logger.info("Published %s, version %s, on %d templates", self.name, version, len(templates))
        if told:
            logger.info("Expected Dice of %s: %s, %s", self.name, *told.values())
        return {"version": version, "labels": list(labels), "scores": model.scores, **told}

    def _epochs(self, request: dict[str, Any]) -> int:
        return whole_number(request, "max_epochs", self.config()["max_epochs"], least=1)


def expectation(model: Model) -> dict[str, Any]:
    """What people want to know of a model: the Dice coefficient to expect, None if nobody can say, and of what."""
    dice = model.scores.get("expected_dice")
    if dice is None:
        return {"expected_dice": None, "expected_dice_of": UNKNOWN}
    of = OTHERS if model.scores.get("other_patients") else SAME
    return {"expected_dice": round(dice, 3), "expected_dice_of": of}
