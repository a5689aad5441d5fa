"""Training of an adapter on everything that was submitted."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.utils.others.generic import device_list, name_to_device
from typing_extensions import override

from lib.models import PublishedModels
from lib.project import Project
from lib.trainers.base import WorkspaceTrainer, whole_number
from lib.trainers.stats import TrainingStats

logger = logging.getLogger(__name__)

MAX_EPOCHS = 40
"""The engine's own default; it stops earlier when held-out pixels do not get better."""


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

    @override
    def config(self) -> dict[str, Any]:
        return {"max_epochs": self.project.settings.max_epochs or MAX_EPOCHS, "device": device_list()}

    @override
    def check(self, request: dict[str, Any]) -> None:
        """Refuse a training without templates or with unusable options."""
        self._epochs(request)
        self.project.require_templates()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train on all submissions.

        Returns:
            The final statistics.

        Raises:
            HTTPException, FewshotError: with the reason; the adapter published before stays in use.
        """
        self.project.datastore = datastore
        self.check(request)
        device = name_to_device(request.get("device") or None)
        with self._only_one(seconds=2):  # a server that only looks holds the lock for a moment
            submissions = self.project.submissions()
            stats = TrainingStats(
                self._stats,
                model=self.name,
                total_epochs=self._epochs(request),
                templates=[submission.image_id for submission in submissions],
            )
            try:
                templates = self.project.templates(submissions)
                labels = self.project.drawn_labels(templates)
                model = self.project.engine.fit(
                    templates,
                    adapter=self.adapter,
                    labels=labels,
                    options={"epochs": self._epochs(request)},
                    device=device,
                    progress=stats.progress,
                )
                version = self.models.publish(model)
            except Exception as error:
                stats.finish(error=str(error))
                raise
        logger.info("Published %s, version %s, on %d templates", self.name, version, len(templates))
        return stats.finish(version=version, labels=list(labels), scores=model.scores)

    def _epochs(self, request: dict[str, Any]) -> int:
        return whole_number(request, "max_epochs", self.config()["max_epochs"], least=1)
