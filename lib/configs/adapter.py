"""What the configurations of all adapters have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from monailabel.interfaces.config import TaskConfig

from lib.infers import Segmentation
from lib.models import FittedModels, ModelSource, PublishedModels
from lib.project import Project
from lib.trainers import AdapterTrainer


class AdapterConfig(TaskConfig):
    """The infer and train tasks of one adapter of the engine."""

    adapter: ClassVar[str]
    description: ClassVar[str]
    trained: ClassVar[bool] = True

    def init(
        self, name: str, model_dir: str, conf: dict[str, str], planner: Any = None, **shared: Project
    ) -> None:
        """Take the place of MONAI Label's `init`.

        Args:
            name: the task's name in `/info/`.
            model_dir: where the app keeps its workspaces.
            conf: what was given with --conf.
            planner: not used; slicing is decided from the templates.
            shared: `project`, which all tasks share.
        """
        super().init(name, model_dir, conf, planner, **shared)
        self.project = shared["project"]
        self.models: ModelSource = (
            PublishedModels(name, self.project) if self.trained else FittedModels(self.adapter, self.project)
        )

    def infer(self) -> Segmentation:
        return Segmentation(self.models, self.project, description=self.description)

    def trainer(self) -> AdapterTrainer | None:
        if not isinstance(self.models, PublishedModels):
            return None
        return AdapterTrainer(self.models, self.project, adapter=self.adapter, description=self.description)
