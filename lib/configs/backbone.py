"""The backbone, trained on the server's own studies."""

from __future__ import annotations

from typing import ClassVar

from monailabel.interfaces.config import TaskConfig

from lib.project import Project
from lib.trainers import BackboneTrainer


class BackboneConfig(TaskConfig):
    """Learns from all studies, labelled or not, to tell tissues apart; the adapters then work on its features."""

    description: ClassVar[str] = (
        "Learns from all studies, labelled or not; published unless the templates are found worse with it"
    )

    def init(
        self, name: str, model_dir: str, conf: dict[str, str], planner: object = None, **shared: Project
    ) -> None:
        """As the adapters' configurations, see `lib.configs.adapter`."""
        super().init(name, model_dir, conf, planner, **shared)
        self.project = shared["project"]

    def infer(self) -> None:
        """A backbone finds nothing by itself."""

    def trainer(self) -> BackboneTrainer:
        return BackboneTrainer(self.name, self.project, description=self.description)
