"""Where inference gets its fitted adapter from: published by a training, or fitted on the spot."""

from __future__ import annotations

import logging
import re
import threading
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from fastapi import HTTPException

from lib.files import stamp

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkModel
    from fewshot.model import Model
    from lib.project import Project

logger = logging.getLogger(__name__)

LANDMARKS = "landmarks"
"""The model that finds landmarks; all others are adapters."""

LATEST = "latest"
KEPT = 5
"""Published adapters kept of each model."""

NO_TEMPLATE = "No template yet: label a structure in one study, submit it, press Train, then run again."
NO_TEMPLATE_UNTRAINED = "No template yet: label a structure in one study, submit it, then run again."
NO_ORGAN = (
    "No organ labelled yet, only landmarks: label a structure in one study and submit it first, or choose the model "
    "landmarks."
)


class Saved(Protocol):
    """What can be published."""

    def save(self, path: Path) -> None:
        """Write the file; readers never see half of it."""


Kind = TypeVar("Kind", bound=Saved)


class ModelSource(Protocol):
    """Gives fitted models by version."""

    def versions(self) -> list[str]:
        """Names to choose from, newest first."""

    def load(self, version: str, *, device: str) -> Model:
        """The model of a version, or of `LATEST`; HTTPException says what to do where there is none."""

    def file(self, *, new: bool = False) -> Path | None:
        """The file of the latest model, or the one that a new model would get; None where there are no files."""

    def require(self) -> None:
        """Raise HTTPException where there is nothing to load yet."""


class Published(ABC, Generic[Kind]):
    """What trainings of one model have published; the newest is used unless told otherwise.

    A version is a file `NUMBER-DATE-TIME.safetensors`, written beside and renamed into place: a running
    server finds it at its next inference, and until then, or if a training fails, uses the one before.

    Args:
        name: the model's name in `/info/`.
        project: the workspace it belongs to.
    """

    def __init__(self, name: str, project: Project) -> None:
        self.name = name
        self.folder = project.workspace.adapters(name)
        self._project = project
        self._mutex = threading.Lock()
        self._loaded: tuple[tuple[object, ...], Kind] | None = None

    @abstractmethod
    def _read(self, path: Path) -> Kind:
        """Read a file; FewshotError if it holds something else."""

    @abstractmethod
    def _require_templates(self) -> None:
        """Raise HTTPException where there is nothing to train on."""

    def versions(self) -> list[str]:
        return sorted(
            (path.stem for path in self.folder.glob("[0-9]*.safetensors")), key=_number, reverse=True
        )

    def file(self, *, new: bool = False) -> Path | None:
        versions = self.versions()
        if not new:
            return self._path(versions[0]) if versions else None
        self.folder.mkdir(parents=True, exist_ok=True)
        number = _number(versions[0]) + 1 if versions else 1
        return self._path(f"{number:04d}-{datetime.now():%Y%m%d-%H%M%S}")

    def require(self) -> None:
        if not self.versions():
            self._refuse()

    def load(self, version: str = LATEST, *, device: str = "auto") -> Kind:  # noqa: ARG002 - as ModelSource says
        """The model of a version, see `ModelSource`."""
        versions = self.versions()
        if not versions:
            self._refuse()
        if version != LATEST and version not in versions:
            raise HTTPException(
                404,
                f"There is no version {version} of {self.name}; choose {LATEST} or {', '.join(versions)}.",
            )
        path = self._path(versions[0] if version == LATEST else version)
        key = (path, *stamp(path))
        with self._mutex:
            if self._loaded is None or self._loaded[0] != key:
                self._loaded = key, self._read(path)
                logger.info("Loaded %s", path)
            return self._loaded[1]

    def publish(self, model: Kind) -> str:
        """Make a model the latest and forget those beyond the last five.

        Returns:
            Its version.
        """
        path = self.file(new=True)
        assert path
        model.save(path)
        for old in self.versions()[KEPT:]:
            self._path(old).unlink(missing_ok=True)
        return path.stem

    def _path(self, version: str) -> Path:
        return self.folder / f"{version}.safetensors"

    def _refuse(self) -> None:
        self._require_templates()
        raise HTTPException(409, f"{self.name} is not trained yet: press Train, then run again.")


class PublishedModels(Published["Model"]):
    """Segmentation adapters."""

    def _read(self, path: Path) -> Model:
        from fewshot.model import load_model

        return load_model(path)

    def _require_templates(self) -> None:
        self._project.require_templates()


class PublishedLandmarks(Published["LandmarkModel"]):
    """Landmark models."""

    def _read(self, path: Path) -> LandmarkModel:
        from fewshot.landmarks import load_landmark_model

        return load_landmark_model(path)

    def _require_templates(self) -> None:
        self._project.landmarks.require()


class FittedModels:
    """A model that needs no training: fitted from the templates whenever they changed, which takes no time.

    Args:
        adapter: the engine's adapter.
        project: where the templates come from.
    """

    def __init__(self, adapter: str, project: Project) -> None:
        self.adapter = adapter
        self._project = project
        self._mutex = threading.Lock()
        self._fitted: tuple[tuple[object, ...], Model] | None = None

    def versions(self) -> list[str]:
        return []

    def file(self, *, new: bool = False) -> Path | None:  # noqa: ARG002 - as ModelSource says
        return None

    def require(self) -> None:
        if not self._project.submissions():
            raise HTTPException(409, NO_TEMPLATE_UNTRAINED)
        self._project.require_templates()

    def load(self, version: str = LATEST, *, device: str = "auto") -> Model:  # noqa: ARG002 - as ModelSource says
        with self._mutex:
            self.require()
            submissions = self._project.submissions()
            engine = self._project.engine
            key = (engine.name, device, *((entry.image_id, entry.stamp) for entry in submissions))
            if self._fitted is None or self._fitted[0] != key:
                templates = self._project.templates(submissions)
                if not templates:
                    raise HTTPException(409, NO_ORGAN)
                labels = self._project.drawn_labels(templates)
                model = engine.fit(templates, adapter=self.adapter, labels=labels, device=device)
                if templates.passing:
                    return model
                self._fitted = key, model
            return self._fitted[1]


def backbone_of(file: Path) -> str:
    """The backbone that a published model of any kind was fitted on.

    Raises:
        FewshotError: if the file cannot be read.
    """
    from fewshot.landmark_files import holds_landmarks
    from fewshot.landmarks import load_landmark_model
    from fewshot.model import load_model

    return (load_landmark_model(file).regions if holds_landmarks(file) else load_model(file)).backbone


def _number(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0
