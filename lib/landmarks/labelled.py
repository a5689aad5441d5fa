"""The landmarks of one workspace: which labels they are, and the templates that show them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.found import Found, NothingToLearnError, read_all
from lib.labels import clean_name
from lib.landmarks.folder import FOLDER, LandmarkFolder, read_file
from lib.landmarks.naming import LandmarkNames, Rule
from lib.landmarks.separating import without_landmarks
from lib.templates import Submission

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkTemplate
    from fewshot.support import Template
    from fewshot.volumes import Volume
    from lib.project import Project

logger = logging.getLogger(__name__)

NO_LANDMARK = (
    "No landmark yet: mark one with a dot in one study, in a segment whose name ends in landmark or is listed with "
    "--conf landmarks, submit it, press Train, then run again."
)
NO_LANDMARK_MARKED = "No landmark is marked in it."
ONLY_LANDMARKS = "Only landmarks are marked in it."

LARGE = 0.1
"""A landmark whose voxels lie, in the mean, further from its centre than this share of the image's longest side is
told: an organ has this size, no dot has."""


class Landmarks:
    """Tells landmarks from other labels in what was submitted.

    Args:
        project: whose labels.
        studies: folder or DICOMweb address.
    """

    def __init__(self, project: Project, studies: str) -> None:
        self._project = project
        self.folder = LandmarkFolder(studies)
        self._names = LandmarkNames(project.settings.landmarks, project.labels, self._named_in_files)
        self._drawn: dict[str, tuple[object, frozenset[str]]] = {}

    def rule(self) -> Rule:
        """Which names are landmarks now."""
        return self._names.rule()

    def only(self) -> bool:
        """Whether there are labels, and all are landmarks."""
        labels = self._project.labels.read()
        return bool(labels) and all(map(self.rule(), labels))

    def exist(self) -> bool:
        """Whether a landmark is marked somewhere, in a submission or a file."""
        is_landmark = self.rule()
        return bool(self.folder.names()) or any(map(is_landmark, self._all_drawn()))

    def organ_exists(self) -> bool:
        """Whether something that is no landmark is drawn somewhere."""
        is_landmark = self.rule()
        return any(not is_landmark(name) for name in self._all_drawn())

    def require(self) -> None:
        """Refuse to go on without a landmark.

        Raises:
            HTTPException: with what to do first.
        """
        if not self.exist():
            raise HTTPException(409, NO_LANDMARK)

    def organs_of(self, template: Template) -> Template:
        """A template without its landmarks.

        Raises:
            NothingToLearnError: if it has nothing else.
        """
        organs = without_landmarks(template, self.rule(), self._project.settings.plane)
        if organs is None:
            raise NothingToLearnError(ONLY_LANDMARKS)
        return organs

    def of_labels(self, template: Template) -> LandmarkTemplate:
        """The landmarks of a template.

        Where a template is complete, those that it names and does not show are not in the image.

        Raises:
            NothingToLearnError: if it has none.
        """
        from fewshot.landmarks import LandmarkTemplate

        is_landmark = self.rule()
        names = {name: value for name, value in template.names.items() if is_landmark(name)}
        drawn = {name: value for name, value in names.items() if value in template.values}
        if not drawn:
            raise NothingToLearnError(NO_LANDMARK_MARKED)
        absent = set(names) - set(drawn) if template.complete else set()
        return LandmarkTemplate.of_labels(template.volume, template.labels, drawn, absent=absent)

    def templates(self, only: str | None = None) -> Found[LandmarkTemplate]:
        """All landmarks that people have marked, in viewers and in files.

        A file adds to what was submitted of its image, and never replaces it.

        Args:
            only: look at this image alone.

        Raises:
            FewshotError: if a submission cannot be read; a bad file is left out.
        """
        wanted = [of for of in self._project.submissions() if only in (None, of.image_id)]
        found = read_all(lambda of: self.of_labels(self._project.template(of)), wanted)
        files = self.folder.files()
        for image, paths in files.items() if only is None else [(only, files.get(only, []))]:
            for path in paths:
                try:
                    self._add_file(found, image, path)
                except FewshotError as error:
                    told = f"{FOLDER}/{path.name}"
                    found.left_out[told] = str(error).replace(str(path), told)
                    logger.warning("The landmarks in %s are left out: %s", path, error)
        for image, template in zip(found.images, found, strict=True):
            if sentence := _too_large(template):
                found.warnings[image] = sentence
                logger.warning("%s", sentence)
        return found

    def _add_file(self, found: Found[LandmarkTemplate], image: str, path: Path) -> None:
        if image not in self._project.datastore.list_images():
            raise FewshotError(f"There is no image {image} in these studies: name the file like its image.")
        place = found.images.index(image) if image in found.images else None
        if place is None:
            volume = self._project.images.read(self._project.path(image), keep=False)
            said = self._read_file(path, volume)
            found.add(image, said)
            found.left_out.pop(image, None)
            return
        known = found[place]
        said = self._read_file(path, known.volume)
        marks = {**said.marks, **known.marks}
        absent = (said.absent | known.absent) - set(marks)
        found[place] = replace(known, marks=marks, absent=absent)

    def _named_in_files(self) -> frozenset[str]:
        """The landmarks in the files of these studies' images; no organ is one because of a file of no image."""
        named = self.folder.names()
        here = named.keys() & self._project.datastore.list_images() if named else ()
        return frozenset[str]().union(*(named[image] for image in here))

    def _read_file(self, path: Path, volume: Volume) -> LandmarkTemplate:
        """A file's landmarks under the names that they have today."""
        template = read_file(path, volume)
        names: dict[str, str] = {}
        for name in (*template.marks, *sorted(template.absent)):
            if (other := names.setdefault(self.today(name), name)) != name:
                raise FewshotError(
                    f"{path} has {other} and {name}, which are one label today, {self.today(name)}: remove one of them."
                )
        marks = {self.today(name): mark for name, mark in template.marks.items()}
        return replace(template, marks=marks, absent=frozenset(map(self.today, template.absent)))

    def today(self, name: str) -> str:
        """The name that a label has today, or this one where it is not known.

        Raises:
            FewshotError: if a label cannot have this name.
        """
        known = self._project.labels.current(name)
        return known[0] if known else clean_name(name)

    def _all_drawn(self) -> Iterable[str]:
        """Names of labels that are drawn, as they are called today; one may come several times."""
        for submission in self._project.submissions():
            for name in self._drawn_in(submission):
                known = self._project.labels.current(name)
                yield known[0] if known else name

    def _drawn_in(self, submission: Submission) -> frozenset[str]:
        """Names that occur in a label: viewers name all segments, also those in which nothing is drawn.

        A label elsewhere is not fetched for this; one that cannot be read counts as showing all of them.
        """
        names = frozenset(name for name in submission.names.values() if name)
        if submission.elsewhere:
            return names
        known = self._drawn.get(submission.image_id)
        if known is None or known[0] != submission.stamp:
            with suppress(FewshotError):
                present = _values(submission.file())
                names = frozenset(
                    name for value, name in submission.names.items() if name and value in present
                )
            known = self._drawn[submission.image_id] = submission.stamp, names
        return known[1]


def _values(label: Path) -> set[int]:
    from fewshot.volumes.raw import read_raw

    with np.errstate(invalid="ignore"):  # values that are no labels are told when it is read
        values = read_raw(label, labels=True).array.astype(np.uint16)
    return set(np.flatnonzero(np.bincount(values.ravel())).tolist())


def _too_large(template: LandmarkTemplate) -> str | None:
    """What is strange about the size of a template's landmarks."""
    sides: Any = np.multiply(template.volume.shape, template.volume.spacing)
    large = [name for name, mark in template.marks.items() if mark.spread > LARGE * float(max(sides))]
    if not large:
        return None
    return (
        f"Landmark {large[0]} of {template.volume.name} is as large as an organ, its voxels lie "
        f"{template.marks[large[0]].spread:.0f} mm from its centre: if it is one, give it another name."
    )
