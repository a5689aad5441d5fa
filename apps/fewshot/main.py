"""The app that MONAI Label loads: `monailabel start_server --app apps/fewshot --studies FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Before everything: MONAI Label puts this app's folder and the working directory on the path, where a folder
# named lib (it makes one here) or fewshot (this one, seen from apps/) would stand in for our packages.
sys.path.insert(0, str(REPOSITORY))

import lib  # noqa: E402

if Path(lib.__file__ or "").resolve().parent != REPOSITORY / "lib":
    raise ImportError(
        f"The package lib was found in {list(lib.__path__)}, not in {REPOSITORY}: "
        "take that folder off PYTHONPATH, or start the server from another directory."
    )

import logging  # noqa: E402

from fastapi import HTTPException  # noqa: E402
from monailabel.config import settings  # noqa: E402
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.datastore import Datastore  # noqa: E402
from monailabel.interfaces.tasks.infer_v2 import InferTask  # noqa: E402
from monailabel.interfaces.tasks.strategy import Strategy  # noqa: E402
from monailabel.interfaces.tasks.train import TrainTask  # noqa: E402
from monailabel.tasks.activelearning.first import First  # noqa: E402

from fewshot import __version__  # noqa: E402
from fewshot.errors import FewshotError  # noqa: E402
from lib import routes  # noqa: E402
from lib.activelearning import Random  # noqa: E402
from lib.batch import BatchInference  # noqa: E402
from lib.click_warming import ClickWarmer  # noqa: E402
from lib.configs.registry import CONFIGS, LONG  # noqa: E402
from lib.configs.settings import AppSettings  # noqa: E402
from lib.datastore import StudiesFolder  # noqa: E402
from lib.infers import Points  # noqa: E402
from lib.project import Project  # noqa: E402
from lib.warming import Warmer  # noqa: E402

logger = logging.getLogger(__name__)


class FewshotApp(MONAILabelApp):
    """Few-shot segmentation: label one or a few studies, press Train, get the others."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            self._open(app_dir, studies, conf or {})
        except FewshotError:
            # The start ends here, and whoever started it needs the sentence, not our call stack.
            sys.tracebacklimit = 0
            raise

    def _open(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.settings = AppSettings.parse(conf, models=tuple(CONFIGS))
        self.project = Project.open(app_dir, studies, self.settings)
        self.tasks = {name: CONFIGS[name]() for name in self.settings.models or CONFIGS}
        for name, task in self.tasks.items():
            task.init(name, str(Path(app_dir) / "model"), conf, None, project=self.project)
        self.warmer, self.click_warmer = Warmer(self.project), ClickWarmer(self.project)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="fewshot",
            description="Label one or a few studies, press Train, get the others",
            version=__version__,
        )
        logger.info("Workspace: %s", self.project.workspace.folder)

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            self.project.datastore = super().init_datastore()
        else:
            # A background process relies on the server's record of the folder and does not write its own.
            entry = getattr(sys.modules["__main__"], "__spec__", None)
            background = getattr(entry, "name", "") == "monailabel.interfaces.utils.app"
            self.project.datastore = StudiesFolder(
                self.studies,
                extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
                check=self.project.check_label,
                auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
                read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY or background,
            )
        return self.project.datastore

    def init_infers(self) -> dict[str, InferTask]:
        infers = {name: task.infer() for name, task in self.tasks.items()}
        for infer in infers.values():
            if isinstance(infer, Points):
                infer.clicked = self.click_warmer.near
        return {name: infer for name, infer in infers.items() if infer}

    def init_trainers(self) -> dict[str, TrainTask]:
        trainers = {name: task.trainer() for name, task in self.tasks.items()}
        trainers = {name: trainer for name, trainer in trainers.items() if trainer}
        if unknown := [name for name in self.settings.train_all or () if name not in trainers]:
            known = ", ".join(trainers) or "none"
            raise FewshotError(
                f"--conf train_all: {', '.join(unknown)} cannot be trained here; choose from {known}."
            )
        return trainers

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "first": First()}

    def init_batch_infer(self) -> BatchInference:
        return BatchInference()

    def on_init_complete(self) -> None:
        super().on_init_complete()
        routes.install()
        self.warmer.follow()

    def on_save_label(self, image_id: str, label_id: str) -> None:
        super().on_save_label(image_id, label_id)
        self.project.learn_names(image_id)
        self.warmer.warm(image_id)

    def info(self) -> dict[str, Any]:
        """What viewers need to know, the training that started last first: Slicer shows the first one."""
        meta = super().info()
        latest = sorted(meta["train_stats"].items(), key=lambda item: -item[1].get("start_ts", 0))
        meta["train_stats"] = dict(latest)
        return dict(meta)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Infer, after refusing what cannot be inferred with a sentence."""
        self.check_inference(request.get("model", ""))
        image, store = request.get("image"), datastore or self.datastore()
        if not image:
            raise HTTPException(404, "There is no image to infer: name one, or start a new session.")
        unknown = isinstance(store, StudiesFolder) and image not in store.list_images()
        if unknown and not (isinstance(image, str) and Path(image).exists()):
            raise HTTPException(404, f"There is no image {image} in these studies.")
        return dict(super().infer(request, datastore))

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Choose the next image, after refusing an unknown strategy with a sentence."""
        strategy = request.get("strategy") or "random"
        if strategy not in self._strategies:
            known = ", ".join(self._strategies)
            raise HTTPException(404, f"There is no strategy {strategy}; choose from {known}.")
        sample = dict(super().next_sample(request))
        if sample.get("id"):
            self.on_open(self.project.path(sample["id"]))
        return sample

    def on_open(self, image: Path) -> None:
        """An image was handed to an annotator: get ready for clicks in it."""
        if any(isinstance(task, Points) for task in self._infers.values()):
            self.click_warmer.open(image)

    def check_inference(self, model: str) -> None:
        """Raise HTTPException where a model is unknown or not ready."""
        if model not in self._infers:
            raise HTTPException(404, f"There is no model {model}; choose from {', '.join(self._infers)}.")
        self._infers[model].require()

    def check_batch(self, model: str) -> None:
        """Raise HTTPException where a known model cannot infer many images by itself."""
        if isinstance(self._infers[model], Points):
            raise HTTPException(
                422, f"{model} answers clicks in one image: choose another model for a batch."
            )

    def check_training(self, model: str, params: dict[str, Any]) -> None:
        """Raise HTTPException where a model cannot be trained now."""
        if model not in self._trainers:
            known = ", ".join(self._trainers) or "none"
            raise HTTPException(404, f"There is no model {model} to train; there is {known}.")
        self._trainers[model].check(params)

    def trained_together(self) -> list[str]:
        """What *train all* trains: adapters, unless the configuration says otherwise."""
        told = self.settings.train_all
        return [name for name in self._trainers if (name not in LONG if told is None else name in told)]

    def trains(self, model: str) -> bool:
        """Whether a training runs in this workspace, whoever started it."""
        return bool(self._trainers[model].running())
