"""Landmarks."""

from __future__ import annotations

from typing import ClassVar

from monailabel.interfaces.config import TaskConfig

from lib.infers import LandmarkFinder
from lib.models import PublishedLandmarks
from lib.project import Project
from lib.trainers import LandmarkTrainer


class LandmarksConfig(TaskConfig):
    """Finds the landmarks that the templates mark."""

    description: ClassVar[str] = "Finds the landmarks that the templates mark, and shows them as balls"

    def init(
        self, name: str, model_dir: str, conf: dict[str, str], planner: object = None, **shared: Project
    ) -> None:
        """As the adapters' configurations, see `lib.configs.adapter`."""
        super().init(name, model_dir, conf, planner, **shared)
        self.project = shared["project"]
        self.models = PublishedLandmarks(name, self.project)

    def infer(self) -> LandmarkFinder:
        return LandmarkFinder(self.models, self.project, description=self.description)

    def trainer(self) -> LandmarkTrainer:
        return LandmarkTrainer(self.models, self.project, description=self.description)
