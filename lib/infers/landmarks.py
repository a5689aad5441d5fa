"""Landmarks of a whole volume with a published landmark model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.tasks.infer_v2 import InferType
from typing_extensions import override

from fewshot.progress import Progress, silent
from lib.infers.task import VolumeTask, chosen
from lib.labels import LARGEST
from lib.landmarks import computing
from lib.landmarks.naming import in_todays_names
from lib.models import LATEST, PublishedLandmarks
from lib.project import Project
from lib.requested import millimetres

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkModel, LandmarkPrediction
    from fewshot.volumes import Volume


class LandmarkFinder(VolumeTask):
    """Finds a model's landmarks and shows them as balls.

    The result's parameters hold what the engine says, `landmarks` (all of the model, found or not, under the names that
    they have today) with `timings`, `provenance` and `notes`, the model's `version`, and `label_names`, the whole
    dictionary. The label map has a ball for every landmark that was found and has a value.

    Args:
        models: where landmark models come from.
        project: what all tasks share.
        description: for the viewer's user.
    """

    compress = True
    """Nearly all voxels are 0."""

    def __init__(self, models: PublishedLandmarks, project: Project, *, description: str) -> None:
        self.models = models
        super().__init__(project, kind=InferType.SEGMENTATION, description=description)
        self._config["radius"] = 0.0

    @override
    def require(self) -> None:
        self.models.require()

    @override
    def get_path(self, validate: bool = True) -> str | None:
        """The latest model's file, or the one that an uploaded model becomes."""
        file = self.models.file(new=not validate)
        return str(file) if file else None

    @override
    def config(self) -> dict[str, Any]:
        """Options for viewers: the radius of balls in mm, 0 for that of the model, and its version."""
        versions = self.models.versions()
        return {**self._config, **({"version": [LATEST, *versions]} if versions else {})}

    def version(self, asked: str = LATEST) -> str:
        """The version that a request means.

        Raises:
            HTTPException: if there is none yet.
        """
        self.require()
        return self.models.versions()[0] if asked == LATEST else asked

    def find(
        self, image: Path, *, version: str = LATEST, device: str = "auto", progress: Progress = silent
    ) -> LandmarkPrediction:
        """Find the landmarks in an image, under the names that they have today.

        Raises:
            HTTPException: if there is no such version.
            FewshotError: if the image cannot be read.
        """
        model = self.models.load(version, device=device)
        return self._find(self.project.images.read(image), model, device, progress)

    @override
    def run_inferer(
        self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu"
    ) -> dict[str, Any]:
        """Find them with the engine; the balls go to `pred`."""
        from fewshot.landmarks.balls import paint_balls

        radius = millimetres(data, "radius")
        version = self.version(chosen(data.get("version"), LATEST))
        model = self.models.load(version, device=device)
        prediction = self._find(data["volume"], model, device, self.progress(data))
        values = self.project.labels.read()
        data["pred"] = paint_balls(prediction, radius or model.radius, values)
        data["result"] = {**prediction.to_json(), "version": version}
        return data

    def _find(
        self, volume: Volume, model: LandmarkModel, device: str, progress: Progress
    ) -> LandmarkPrediction:
        found = computing.find(self.project.engine, volume, model, device=device, progress=progress)
        return self._in_todays_names(found)

    def _in_todays_names(self, prediction: LandmarkPrediction) -> LandmarkPrediction:
        unshown = set(self.project.labels.add_what_fits(prediction.landmarks))
        landmarks = in_todays_names(prediction.landmarks, self.project.labels)
        notes = list(prediction.notes)
        if unshown:
            notes.append(
                f"{len(unshown)} of {len(landmarks)} landmarks are not in the label map, which holds {LARGEST} labels: "
                f"{', '.join(sorted(unshown)[:5])}{' ...' if len(unshown) > 5 else ''}; `landmarks` has all of them."
            )
        return replace(prediction, landmarks=landmarks, notes=notes)
