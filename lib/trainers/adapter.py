"""Training of an adapter on everything that was submitted."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device
from typing_extensions import override

from lib.files import read_json
from lib.models import PublishedModels
from lib.project import Project
from lib.trainers.stats import TrainingStats

logger = logging.getLogger(__name__)

MAX_EPOCHS = 40
"""The engine's own default; it stops earlier when held-out pixels do not get better."""


class AdapterTrainer(TrainTask):
    """Fits an adapter on the templates and publishes it.

    `BasicTrainTask` is made of MONAI's engines: networks, optimisers, transforms and data loaders that run
    over volumes. None of that exists here, for an adapter is fitted on a few thousand pixel features in
    seconds by the engine. So this is a `TrainTask` of its own that keeps the conventions which viewers rely
    on: `config` with `max_epochs` and `device`, and statistics in the form of `BasicTrainTask`, written
    while the training runs.

    Args:
        models: where the adapter is published.
        project: what all tasks share.
        adapter: the engine's adapter.
        description: for the viewer's user.
    """

    def __init__(self, models: PublishedModels, project: Project, *, adapter: str, description: str) -> None:
        super().__init__(description)
        self.models = models
        self.project = project
        self.adapter = adapter
        self._stats = project.workspace.stats(models.name)

    @override
    def config(self) -> dict[str, Any]:
        return {"max_epochs": self.project.settings.max_epochs or MAX_EPOCHS, "device": device_list()}

    @override
    def stats(self) -> dict[str, Any]:
        """The last or running training's statistics, empty before the first."""
        try:
            return dict(read_json(self._stats))
        except FileNotFoundError:
            return {}

    def check(self, request: dict[str, Any]) -> None:
        """Refuse what can be refused before a process is started for it.

        Raises:
            HTTPException: without templates or with unusable options.
        """
        self._epochs(request)
        self.project.require_templates()

    def running(self) -> bool:
        """Whether any process trains in this workspace, one that an earlier server left behind included."""
        try:
            with self._only_one(seconds=1):  # one that was just killed lets go a moment later
                return False
        except HTTPException:
            return True

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
                model=self.models.name,
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
        logger.info("Published %s, version %s, on %d templates", self.models.name, version, len(templates))
        return stats.finish(version=version, labels=list(labels), scores=model.scores)

    def _epochs(self, request: dict[str, Any]) -> int:
        """How many epochs were asked for; viewers send an emptied field as null, NaN or an empty text."""
        asked = request.get("max_epochs")
        if asked is None or asked == "" or (isinstance(asked, float) and math.isnan(asked)):
            asked = self.config()["max_epochs"]
        try:
            epochs = int(asked)
        except (TypeError, ValueError):
            epochs = 0
        if epochs < 1:
            raise HTTPException(422, f"max_epochs is {asked!r}: give a whole number of at least 1.")
        return epochs

    @contextmanager
    def _only_one(self, *, seconds: float) -> Iterator[None]:
        lock = FileLock(self.project.workspace.training_lock)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise HTTPException(
                429, "A training is running in this workspace: wait until it is done, or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()
