"""What all infer tasks have in common: MONAI Label's road of an inference with the engine in the middle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.utils.others.generic import strtobool
from typing_extensions import override

from fewshot.errors import FewshotError
from fewshot.progress import Progress
from lib.infers.writing import default_extension, write_result
from lib.project import Project
from lib.queueing import Cancelled


class VolumeTask(BasicInferTask):
    """Reads an image, computes labels on its grid, writes them.

    There is no torch network for `BasicInferTask` to load: the engine cuts volumes itself and brings the result
    back to the image's own grid. So `run_inferer` and `writer` are replaced, and the rest of the road (options,
    latencies, callbacks) is MONAI Label's.

    Args:
        project: what all tasks share.
        kind: decides where viewers offer the task.
        dimension: 3, or 2 for a task that finds one slice at a time.
        description: for the viewer's user.
    """

    compress = False
    """Whether formats that can be either are compressed where the request does not say."""

    def __init__(self, project: Project, *, kind: InferType, description: str, dimension: int = 3) -> None:
        self.project = project
        super().__init__(
            path=None, network=None, type=kind, labels=None, dimension=dimension, description=description
        )

    @abstractmethod
    def require(self) -> None:
        """Raise HTTPException where there is nothing to infer with yet."""

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

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[Any, dict[str, Any]]:
        """Infer one image.

        Raises:
            HTTPException: with one sentence, if image or options cannot be used.
        """
        request = {key: value for key, value in request.items() if value is not None}
        request["result_extension"] = request.get("result_extension") or default_extension(
            str(request.get("image"))
        )
        try:
            file, result = super().__call__(request, callbacks)
        except Cancelled as error:
            raise HTTPException(409, str(error)) from error
        except FewshotError as error:
            raise HTTPException(422, str(error)) from error
        return file, result

    def progress(self, data: dict[str, Any]) -> Progress:
        """What the engine reports to, so that whoever asked can cancel."""
        return self.project.engine.queue.progress(data.get("ticket"))

    @override
    def pre_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        return [ReadImage(self.project)]

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
            compress=strtobool(data.get("result_compress", self.compress)),
        )
        return file, data["result"]


class ReadImage:
    """Reads the requested image into `volume`."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = data.get("image")
        if not isinstance(image, str) or not image:
            raise HTTPException(404, "There is no image to segment: name one of the studies, or send a file.")
        data["volume"] = self.project.images.read(Path(image))
        return data


def choices(default: str, known: Sequence[str]) -> list[str]:
    """An option for viewers: the default comes first, because Slicer sends that one."""
    return [default, *(choice for choice in known if choice != default)]


def chosen(value: Any, default: str) -> str:
    """An option that a viewer sent: the text, or the first of a list; OHIF sends nothing for the default."""
    if isinstance(value, list):
        value = value[0] if value else None
    return str(value) if value else default
