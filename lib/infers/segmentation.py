"""Segmentation of a whole volume with a fitted adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.utils.others.generic import strtobool
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.configs.settings import COMPONENTS
from lib.infers.writing import default_extension, write_result
from lib.models import LATEST, ModelSource
from lib.project import Project
from lib.templates import read_image

if TYPE_CHECKING:
    from fewshot.model import Model
    from fewshot.prediction import Prediction

logger = logging.getLogger(__name__)


class Segmentation(BasicInferTask):
    """MONAI Label's road of an inference (read, infer, post, write) with the engine in the middle.

    There is no torch network for `BasicInferTask` to load: the engine reads volumes itself, cuts them and
    brings the result back to the image's own grid. So `run_inferer` and `writer` are replaced, and the rest
    of the road (options, latencies, callbacks) is MONAI Label's.

    The result's parameters hold `label_names`, the whole dictionary with values 1..N, and what the engine
    says: `confidence`, `empty_slices`, `timings`, `provenance`, `notes`.

    Args:
        models: where fitted adapters come from.
        project: what all tasks share.
        description: for the viewer's user.
    """

    def __init__(self, models: ModelSource, project: Project, *, description: str) -> None:
        self.models = models
        self.project = project
        super().__init__(
            path=None,
            network=None,
            type=InferType.SEGMENTATION,
            labels=None,
            dimension=3,
            description=description,
        )
        first = project.settings.components
        self._config["components"] = [first, *(choice for choice in COMPONENTS if choice != first)]

    @property
    def labels(self) -> dict[str, int]:
        """The dictionary as it is now: submissions add names while the server runs."""
        return self.project.labels.read()

    @labels.setter
    def labels(self, given: object) -> None:
        """MONAI Label's constructor assigns here; the dictionary's file decides instead."""

    @override
    def is_valid(self) -> bool:
        """Always listed: a model that appears only after the first training is not seen by open viewers."""
        return True

    @override
    def get_path(self, validate: bool = True) -> str | None:
        """The latest adapter's file, or the one that an uploaded adapter becomes."""
        file = self.models.file(new=not validate)
        return str(file) if file else None

    @override
    def config(self) -> dict[str, Any]:
        """Options for viewers: lists whose first item is the default, because Slicer sends that one."""
        versions = self.models.versions()
        return {**self._config, **({"version": [LATEST, *versions]} if versions else {})}

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[Any, dict[str, Any]]:
        """Segment one image.

        Raises:
            HTTPException: with one sentence, if there is no adapter yet, or image or options cannot be used.
        """
        request = {key: value for key, value in request.items() if value is not None}
        request["result_extension"] = request.get("result_extension") or default_extension(
            str(request.get("image"))
        )
        try:
            file, result = super().__call__(request, callbacks)
        except FewshotError as error:
            raise HTTPException(422, str(error)) from error
        return file, result

    @override
    def pre_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        return [ReadImage(self.project)]

    @override
    def run_inferer(
        self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu"
    ) -> dict[str, Any]:
        """Predict with the engine; the label map goes to `pred`."""
        model = self.models.load(_first(data.get("version"), LATEST), device=device)
        components = _first(data.get("components"), self.project.settings.components)
        prediction = self.project.engine.predict(data["volume"], model, components=components, device=device)
        data["pred"], data["result"] = self._in_app_values(prediction, model)
        return data

    @override
    def post_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        return []

    @override
    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[Any, Any]:
        """Write the label map in the form that was asked for, or hand it over as an array."""
        if not strtobool(data.get("result_write_to_file", True)):
            return data["pred"], data["result"]
        file = write_result(
            data["pred"],
            data["volume"],
            extension=extension or data["result_extension"],
            dtype=dtype or data.get("result_dtype"),
            compress=strtobool(data.get("result_compress", False)),
        )
        return file, data["result"]

    def _in_app_values(self, prediction: Prediction, model: Model) -> tuple[np.ndarray, dict[str, Any]]:
        """The prediction with the names and values that labels have in this app today."""
        self.project.labels.add(name for name in model.labels if self.project.labels.current(name) is None)
        lookup = np.zeros(max(model.labels.values()) + 1, np.uint8)
        result = prediction.to_json()
        for name, value in model.labels.items():
            now, lookup[value] = self.project.labels.current(name) or (name, 0)
            if now != name:
                for part in ("confidence", "empty_slices"):
                    result[part][now] = result[part].pop(name)
        return lookup[prediction.labels], result


class ReadImage:
    """Reads the requested image into `volume`."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = data.get("image")
        if not isinstance(image, str) or not image:
            raise HTTPException(404, "There is no image to segment: name one of the studies, or send a file.")
        data["volume"] = read_image(Path(image), self.project.description)
        return data


def _first(value: Any, default: str) -> str:
    """An option that a viewer sent: the text, or the first of a list."""
    if isinstance(value, list):
        value = value[0] if value else None
    return str(value) if value else default
