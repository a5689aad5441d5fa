"""Clicks."""

from __future__ import annotations

from typing import ClassVar

from monailabel.interfaces.config import TaskConfig

from lib.infers import Points
from lib.project import Project


class PointsConfig(TaskConfig):
    """Finds the structure that was clicked, on the slice that is shown."""

    description: ClassVar[str] = "Finds the structure that you click, on this slice"
    whole: ClassVar[bool] = False

    def init(
        self, name: str, model_dir: str, conf: dict[str, str], planner: object = None, **shared: Project
    ) -> None:
        """As the adapters' configurations, see `lib.configs.adapter`."""
        super().init(name, model_dir, conf, planner, **shared)
        self.project = shared["project"]

    def infer(self) -> Points:
        return Points(self.project, whole=self.whole, description=self.description)

    def trainer(self) -> None:
        """Nothing is learned from clicks: submit what came of them."""


class PointsVolumeConfig(PointsConfig):
    """Finds the structure that was clicked, through the volume."""

    description: ClassVar[str] = "Finds the structure that you click, from slice to slice through the volume"
    whole: ClassVar[bool] = True
