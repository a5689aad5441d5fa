"""Everything that the tasks of one server share."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore

from fewshot.errors import FewshotError
from lib.configs.settings import AppSettings
from lib.engine import Engine
from lib.found import Found, read_all
from lib.images import Images
from lib.labels import LARGEST, LabelDictionary
from lib.landmarks.labelled import Landmarks
from lib.landmarks.results import Results
from lib.slicing import Slicing
from lib.studies import StudiesDescription, describe_studies
from lib.templates import (
    Submission,
    by_model,
    check_values,
    list_submissions,
    read_image,
    read_template,
    voxel_names,
)
from lib.workspace import Workspace

if TYPE_CHECKING:
    from fewshot.support import Template
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)


@dataclass
class Project:
    """One set of studies with its workspace, label dictionary and engine.

    Attributes:
        studies: folder or DICOMweb address.
        datastore: set once MONAI Label has made it.
        images: those read lately.
        slicing: how images are cut for the next model.
        landmarks: which labels are landmarks, and where they are marked.
        results: landmarks that were found.
    """

    studies: str
    settings: AppSettings
    workspace: Workspace
    description: StudiesDescription
    labels: LabelDictionary
    engine: Engine
    datastore: Datastore = field(default=None)
    images: Images = field(init=False)
    slicing: Slicing = field(init=False)
    landmarks: Landmarks = field(init=False)
    results: Results = field(init=False)

    def __post_init__(self) -> None:
        self.images = Images(self.description)
        self.slicing = Slicing(self)
        self.landmarks = Landmarks(self, self.studies)
        self.results = Results(self)

    @classmethod
    def open(cls, app_dir: str, studies: str, settings: AppSettings) -> Project:
        """Open the workspace of these studies and take over the configured label names.

        Raises:
            FewshotError: if the workspace or what is in it cannot be used.
        """
        workspace = Workspace.open(app_dir, studies, settings.workspace)
        labels = LabelDictionary(workspace.labels)
        labels.fix(settings.labels) if settings.labels else labels.add(())
        if left_out := labels.add_what_fits(settings.landmarks or ()):
            logger.warning("There is no room for %d of --conf landmarks in label maps.", len(left_out))
        slicing = {"plane": settings.plane, "window": settings.window, "size": settings.size}
        workspace.backbone(settings.backbone)
        engine = Engine(
            workspace.backbone_now,
            find=workspace.find_backbone,
            bank=settings.bank,
            gigabytes=settings.bank_gb,
            slicing={key: value for key, value in slicing.items() if value is not None},
            sam=settings.sam,
        )
        return cls(studies, settings, workspace, describe_studies(studies), labels, engine)

    @property
    def complete(self) -> bool:
        """Whether a template's slices without label are background."""
        told = self.settings.complete
        return bool(self.description.complete if told is None else told)

    def path(self, image_id: str) -> Path:
        """The file or folder of an image of the studies."""
        return Path(self.datastore.get_image_uri(image_id))

    def submissions(self) -> list[Submission]:
        """All labels that people submitted, see `lib.templates`; nothing is fetched."""
        return self._submissions()

    def _submissions(self, only: Collection[str] | None = None) -> list[Submission]:
        return list_submissions(self.datastore, self.description, self.labels, only=only)

    def templates(self, submissions: Sequence[Submission]) -> Found[Template]:
        """Submissions with their images, as segmentation learns from them: without landmarks.

        Where only landmarks are marked, there is nothing to learn. What is kept elsewhere and cannot be had or read
        is left out as well, as long as one template remains.

        Raises:
            FewshotError: if one cannot be read.
        """
        return read_all(lambda of: self.landmarks.organs_of(self.template(of)), submissions)

    def template_images(self, submissions: Sequence[Submission]) -> Found[Volume]:
        """The images of submissions; as for `templates`."""
        return read_all(lambda of: self.images.read(self.path(of.image_id), keep=False), submissions)

    def template(self, submission: Submission) -> Template:
        """A submission with its image and all its labels.

        Raises:
            FewshotError: if it cannot be read.
        """
        while True:
            try:
                return read_template(
                    submission,
                    self.path(submission.image_id),
                    description=self.description,
                    labels=self.labels,
                    complete=self.complete,
                )
            except FewshotError:
                older = [other for other in self._submissions([submission.image_id]) if other != submission]
                if not older:
                    raise
                submission = older[0]  # a label that cannot be used has given way to it

    def drawn_labels(self, templates: Sequence[Template]) -> dict[str, int]:
        """The labels that occur in a template, with the app's values, in their order."""
        from fewshot.support import label_names

        drawn = set(label_names(templates))
        return {name: value for name, value in self.labels.read().items() if name in drawn}

    def require_templates(self) -> None:
        """Refuse a training for which there is nothing to learn from.

        Raises:
            HTTPException: with what to do first.
        """
        from lib.models import NO_ORGAN, NO_TEMPLATE

        if not self.submissions():
            raise HTTPException(409, NO_TEMPLATE)
        if not self.landmarks.organ_exists():
            raise HTTPException(409, NO_ORGAN)

    def check_label(self, image: Path, label: Path, info: dict[str, Any], image_id: str) -> None:
        """Refuse a label that could not be a template.

        Raises:
            HTTPException: with the reason.
        """
        from fewshot.volumes import read_labels

        what = f"The label of {image_id}"
        try:
            drawn = read_labels(label, read_image(image, self.description))
            if by_model(info):
                return
            names = self.label_names(info, image_id)
            check_values(drawn, names, what)
            self._require_room([name for name in names.values() if name])
        except FewshotError as error:
            sentence = str(error).replace(str(label), "the label file")
            raise HTTPException(422, f"{what} was not saved. {sentence[:1].upper()}{sentence[1:]}") from error

    def label_names(self, info: dict[str, Any], image_id: str) -> dict[int, str | None]:
        """Voxel value -> label name of a label with these parameters, see `lib.templates.voxel_names`.

        Raises:
            FewshotError: if names are missing or cannot be names.
        """
        return voxel_names(info, f"The label of {image_id}", self.description, self.labels.read())

    def learn_names(self, *images: str) -> None:
        """Take the label names of images' submissions into the dictionary; one that has no room is told in the log."""
        for submission in self._submissions(images):
            try:
                self.labels.add(name for name in submission.names.values() if name)
            except (FewshotError, OSError) as error:
                logger.warning("The label names of %s are not learned: %s", submission.image_id, error)

    def _require_room(self, names: Sequence[str]) -> None:
        new = {name for name in names if self.labels.current(name) is None}
        if len(new) + len(self.labels.read()) > LARGEST:
            raise FewshotError(
                f"Its {len(new)} new labels would make {len(new) + len(self.labels.read())}: one workspace holds "
                f"{LARGEST}, because viewers ask for 8-bit results."
            )
