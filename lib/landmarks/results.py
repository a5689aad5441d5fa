"""Landmarks that were found or marked, in files: the last result of every image, and points beside label files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.files import read_json, stamp, write_json
from lib.landmarks.naming import in_todays_names
from lib.templates import by_model

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkPrediction, LandmarkTemplate
    from lib.project import Project

logger = logging.getLogger(__name__)

KEY = "landmarks"
"""Under it a result has its landmarks."""

BY_HAND = "marked by hand"
"""The method of landmarks that people have marked."""

BESIDE = (".landmarks.json", ".mrk.json")
"""What stands beside a label file `NAME.nii.gz`: `NAME` with these; a datastore takes neither for image or label."""


class Results:
    """The landmarks of images.

    Args:
        project: whose images.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def keep(self, model: str, image_id: str, result: Mapping[str, Any]) -> None:
        """Remember what a model found in an image of the studies, in place of what it found before.

        Args:
            result: of `lib.infers.LandmarkFinder`.
        """
        image = self._project.path(image_id)
        volume = self._project.images.read(image)
        content = {
            "image": stamp(image),
            "affine": volume.affine.tolist(),
            "shape": list(volume.shape),
            "result": dict(result),
        }
        try:
            write_json(self._file(model, image_id), content)
        except OSError as error:  # whoever asked has the result, which can be found again
            logger.warning("The landmarks of %s were not kept: %s", image_id, error)

    def last(self, model: str, image_id: str, version: str) -> LandmarkPrediction | None:
        """What a version of a model found in an image as it is now, under today's names; None if it was not asked."""
        try:
            content = read_json(self._file(model, image_id))
            fresh = tuple(content["image"]) == stamp(self._project.path(image_id))
            if not fresh or content["result"]["version"] != version:
                return None
            found = _read(content["result"], np.array(content["affine"]), content["shape"])
            return replace(found, landmarks=in_todays_names(found.landmarks, self._project.labels))
        except (FileNotFoundError, FewshotError, KeyError, TypeError):
            return None  # it can be found again

    def forget_all_but(self, images: Collection[str]) -> None:
        """Remove what was found in images that are gone."""
        for file in self._project.workspace.found_landmarks():
            if file.stem not in images:
                file.unlink(missing_ok=True)

    def submitted(self, image_id: str) -> LandmarkPrediction:
        """What people have marked in an image.

        Raises:
            HTTPException: if they have not, with the reasons why files are left out.
        """
        templates = self._project.landmarks.templates(only=image_id)
        if not templates:
            reasons = [f"Nobody has submitted landmarks of {image_id}.", *templates.left_out.values()]
            raise HTTPException(404, " ".join(reasons))
        return marked(templates[0])

    def write_beside(self, image: Path, label: Path, info: Mapping[str, Any], image_id: str) -> None:
        """Write the landmarks of a label that was stored beside its file, in place of those of the label before."""
        drop_beside(label, image_id)
        try:
            prediction = self._of_label(image, label, info, image_id)
            if prediction is not None:
                _write(label.parent, image_id, prediction)
        except (FewshotError, OSError, ValueError) as error:
            # the label is stored, and whoever sent it must not be told otherwise
            logger.warning("The landmarks of %s were not written beside its label: %s", image_id, error)

    def _of_label(
        self, image: Path, label: Path, info: Mapping[str, Any], image_id: str
    ) -> LandmarkPrediction | None:
        project = self._project
        if by_model(info):
            result = info.get("params")
            if not isinstance(result, Mapping) or KEY not in result:
                return None
            volume = project.images.read(image)
            return _read(result, volume.affine, volume.shape)
        is_landmark = project.landmarks.rule()
        names = project.label_names(dict(info), image_id)
        today = {value: project.landmarks.today(name) for value, name in names.items() if name}
        values = {value: name for value, name in today.items() if is_landmark(name)}
        if not values:
            return None
        from fewshot.landmarks import LandmarkTemplate
        from fewshot.volumes import read_labels

        volume = project.images.read(image)
        labels = read_labels(label, volume)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(values.values()), start=1)}
        lookup = np.zeros(max(int(labels.max()), *values) + 1, np.uint16)
        lookup[list(values)] = [numbers[name] for name in values.values()]
        dots = lookup[labels]
        if not dots.any():
            return None
        template = LandmarkTemplate.of_labels(volume, dots, numbers)
        if project.complete:
            template = replace(template, absent=frozenset(numbers) - set(template.marks))
        return marked(template)

    def _file(self, model: str, image_id: str) -> Path:
        return self._project.workspace.landmarks(model) / f"{image_id}.json"


def marked(template: LandmarkTemplate) -> LandmarkPrediction:
    """What people marked, in the form of what a model finds; they are sure of it."""
    from fewshot.landmarks import Candidate, FoundLandmark, LandmarkPrediction

    volume = template.volume
    found = {
        name: FoundLandmark(name, found=True, confidence=1.0, candidates=(Candidate(mark.point, 1.0),))
        for name, mark in template.marks.items()
    }
    absent = {
        name: FoundLandmark(name, found=False, confidence=0.0, reason="marked as absent")
        for name in sorted(template.absent)
    }
    return LandmarkPrediction(
        landmarks=found | absent,
        affine=volume.affine,
        shape=volume.shape,
        calibrated=volume.calibrated,
        provenance={"method": BY_HAND},
        notes=list(volume.notes),
    )


def _read(result: Mapping[str, Any], affine: np.ndarray, shape: Sequence[int]) -> LandmarkPrediction:
    from fewshot.landmarks import LandmarkPrediction  # loads the engine

    return LandmarkPrediction.of_json(result, affine, shape)


def drop_beside(label: Path, image_id: str) -> None:
    """Remove the files with points beside a label."""
    for ending in BESIDE:
        with suppress(FileNotFoundError):
            (label.parent / f"{image_id}{ending}").unlink()


def _write(folder: Path, image_id: str, prediction: LandmarkPrediction) -> None:
    from fewshot.landmarks.markups import write_markups

    plain, markups = (folder / f"{image_id}{ending}" for ending in BESIDE)
    write_json(plain, prediction.to_json())
    write_markups(markups, prediction)
