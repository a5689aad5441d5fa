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

from lib import background, starting  # noqa: E402

if background.in_background():
    background.prepare()
starting.find_tools()

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
from lib import authentication, routes, stopping  # noqa: E402
from lib.activelearning import Random  # noqa: E402
from lib.batch import BatchInference  # noqa: E402
from lib.click_warming import ClickWarmer  # noqa: E402
from lib.configs.registry import CONFIGS, LONG  # noqa: E402
from lib.configs.settings import AppSettings  # noqa: E402
from lib.datastore import StudiesFolder  # noqa: E402
from lib.infers import LandmarkFinder, Points  # noqa: E402
from lib.pacs import client  # noqa: E402
from lib.pacs.datastore import Pacs  # noqa: E402
from lib.pacs.errors import PacsError  # noqa: E402
from lib.project import Project  # noqa: E402
from lib.warming import Warmer  # noqa: E402

logger = logging.getLogger(__name__)

FAILURES = 5
"""So many images that the PACS does not hand over one request for the next image tries before it tells so."""


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
            self.studies = self.studies.strip().rstrip("/")
            other = settings.MONAI_LABEL_DATASTORE.lower() in ("xnat", "dsa")
            self.project.datastore = super().init_datastore() if other else self._open_pacs()
        else:
            # A background process relies on the server's record of the folder and does not write its own.
            self.project.datastore = StudiesFolder(
                self.studies,
                extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
                check=self.project.check_label,
                stored=self.project.results.write_beside,
                vanished=self.project.results.forget_all_but,
                auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
                read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY or background.in_background(),
            )
        return self.project.datastore

    def _open_pacs(self) -> Pacs:
        """The server asks the PACS again and again; a background process once, and ends if it does not answer."""
        starting.require_dicom_tools()
        pacs = Pacs(
            client.make_client(self.studies),
            cache=client.cache_folder(),
            search=client.search_filter(),
            modalities=self.settings.modalities,
            check=self.project.check_label,
            names=self.project.label_names,
            stored=self.project.results.write_beside,
            vanished=self.project.results.forget_all_but,
            on_change=None if background.in_background() else self._on_pacs_change,
        )
        self.project.datastore = pacs  # before the first answer, which may bring labels
        if background.in_background():
            pacs.refresh()
        else:
            pacs.follow(client.poll_seconds(self.settings.poll))
        return pacs

    def _on_pacs_change(self, images: list[str], since_start: bool) -> None:
        """Labels were stored in the PACS by others, such as OHIF, which tell only the PACS."""
        self.project.learn_names(*images)
        for image in images if since_start else ():
            self.warmer.warm(image)

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
        server = stopping.web_server()
        starting.listen(server)
        stopping.install(server, self.end_stats)
        if settings.MONAI_LABEL_AUTH_ENABLE:
            authentication.accept_tokens()
        routes.install()
        self.warmer.follow()

    def end_stats(self, reason: str) -> None:
        """Trainings that were running have ended: say so in their statistics."""
        for trainer in self._trainers.values():
            trainer.end_stats(reason)

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
        image = request.get("image")
        if not image:
            raise HTTPException(404, "There is no image to infer: name one, or start a new session.")
        if not (isinstance(image, str) and Path(image).exists()):
            self._check_image(image, datastore or self.datastore())
        answer = dict(super().infer(request, datastore))
        if isinstance(self._infers[request["model"]], LandmarkFinder) and not Path(image).exists():
            self.project.results.keep(request["model"], image, answer["params"])
        return answer

    def landmark_finder(self, model: str) -> LandmarkFinder:
        """The task of a model that finds landmarks; HTTPException for any other."""
        task = self._infers.get(model)
        if not isinstance(task, LandmarkFinder):
            known = [name for name, other in self._infers.items() if isinstance(other, LandmarkFinder)]
            raise HTTPException(
                404, f"{model} finds no landmarks here; there is {', '.join(known) or 'none'}."
            )
        return task

    def prepare_inference(self, model: str, image: str) -> None:
        """Refuse what cannot be inferred, and fetch an image of the studies: a PACS takes seconds to send one."""
        self.check_inference(model)
        if image and not Path(image).exists():
            self._check_image(image, self.datastore())
            self.project.path(image)

    def _check_image(self, image: object, store: Datastore) -> None:
        if isinstance(store, StudiesFolder) and image not in store.list_images():
            raise HTTPException(404, f"There is no image {image} in these studies.")

    def answers_clicks(self, model: str) -> bool:
        """Whether somebody waits at the screen for what this model finds."""
        return isinstance(self._infers.get(model), Points)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Choose the next image, after refusing an unknown strategy with a sentence."""
        strategy = request.get("strategy") or "random"
        if strategy not in self._strategies:
            known = ", ".join(self._strategies)
            raise HTTPException(404, f"There is no strategy {strategy}; choose from {known}.")
        sample = self._readable_sample(request)
        if sample.get("id"):
            self.on_open(self.project.path(sample["id"]))
        return sample

    def _readable_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next image that can be had and is one volume; a PACS does not offer at once again what is not."""
        refused: FewshotError | None = None
        failures = 0
        while True:
            try:
                sample = dict(super().next_sample(request))
            except FewshotError as error:
                failures += isinstance(error, PacsError)
                lost = isinstance(error, PacsError) and error.lost
                if lost or failures > FAILURES or (refused and str(refused) == str(error)):
                    raise
                logger.warning("Another image is offered: %s", error)
                refused = error
            else:
                if not sample and refused:
                    raise refused
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
        if self.answers_clicks(model):
            raise HTTPException(
                422, f"{model} answers clicks in one image: choose another model for a batch."
            )

    def check_training(self, model: str, params: dict[str, Any]) -> None:
        """Raise HTTPException where a model cannot be trained now."""
        if model not in self._trainers:
            known = ", ".join(self._trainers) or "none"
            raise HTTPException(404, f"There is no model {model} to train; there is {known}.")
        self._look_for_labels()
        self._trainers[model].check(params)

    def _look_for_labels(self) -> None:
        if isinstance(self.project.datastore, Pacs):
            self.project.datastore.refresh()

    def trained_together(self) -> list[str]:
        """What *train all* trains: what has templates and is quick, unless the configuration says otherwise."""
        self._look_for_labels()
        told = self.settings.train_all
        chosen = [name for name in self._trainers if (name not in LONG if told is None else name in told)]
        # where there is nothing to learn from at all, whoever asks is told what to do first
        return [name for name in chosen if self._trainers[name].has_templates()] or chosen

    def trains(self, model: str) -> bool:
        """Whether a training runs in this workspace, whoever started it."""
        return bool(self._trainers[model].running())
