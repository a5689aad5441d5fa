"""Templates: labels that people submitted, read by label name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from fewshot.errors import FewshotError
from lib.files import stamp
from lib.labels import NOT_LABELS, LabelDictionary, clean_name
from lib.pacs.fetching import note_of
from lib.studies import StudiesDescription

if TYPE_CHECKING:
    from fewshot.support import Template
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)


@runtime_checkable
class LabelsElsewhere(Protocol):
    """A datastore whose labels are not files, and may be deleted or damaged by others at any time."""

    def list_images(self) -> list[str]:
        """All images."""

    def label_source(
        self, image_id: str
    ) -> tuple[Mapping[str, Any], tuple[Any, ...], Callable[[], Path]] | None:
        """The label of an image that counts, None if there is none; all of one label at one moment.

        Its info, what changes when another label counts, and how to get its file.
        """


@dataclass(frozen=True)
class Submission:
    """A label that somebody finished.

    Attributes:
        image_id: the image's id in the datastore.
        names: voxel value -> label name as submitted, None for a segment that is no label; values that
            are missing must not occur.
        stamp: changes when the label is submitted again.
        file: gets the label file, which may have to be fetched.
        elsewhere: it is kept elsewhere, so that others can do without it.
    """

    image_id: str
    names: dict[int, str | None]
    stamp: tuple[Any, ...]
    file: Callable[[], Path] = field(compare=False)
    elsewhere: bool = False


def list_submissions(
    datastore: Datastore,
    description: StudiesDescription,
    labels: LabelDictionary,
    *,
    only: Collection[str] | None = None,
) -> list[Submission]:
    """All final labels that people submitted; a model's own results never count.

    Args:
        datastore: where they are.
        description: what dataset.json says.
        labels: the app's dictionary.
        only: look at the labels of these images alone.

    Raises:
        FewshotError: for a label that does not say which structures its values are; one that is kept elsewhere is
            left out instead, because whoever made it need not know of this server.
    """
    submissions, known = [], labels.read()
    elsewhere = isinstance(datastore, LabelsElsewhere)
    for image_id, info, seen, file in _labels(datastore, only):
        if by_model(info):
            continue
        try:
            names = voxel_names(info, f"The label of {image_id}", description, known)
        except FewshotError as error:
            if not elsewhere:
                raise
            _warn_once(image_id, seen, str(error))
            continue
        submissions.append(Submission(image_id, names, seen, file, elsewhere))
    return submissions


def _labels(
    datastore: Datastore, only: Collection[str] | None
) -> Iterator[tuple[str, Mapping[str, Any], tuple[Any, ...], Callable[[], Path]]]:
    """Image, info, stamp and file of every final label."""
    if isinstance(datastore, LabelsElsewhere):
        for image_id in sorted(datastore.list_images() if only is None else only):
            if source := datastore.label_source(image_id):
                yield image_id, *source
        return
    tag = DefaultLabelTag.FINAL.value
    for image_id, entry in sorted(datastore.json()["objects"].items()):
        label = entry["labels"].get(tag)
        if label is not None and (only is None or image_id in only):
            file = partial(_label_file, datastore, image_id)
            yield image_id, label["info"], (label["info"].get("ts"), *stamp(file())), file


@lru_cache(maxsize=1000)
def _warn_once(image_id: str, _label: tuple[Any, ...], reason: str) -> None:
    """Labels are listed at every request; one that cannot be used is told of once."""
    logger.warning("The label of %s is left out: %s", image_id, reason)


def _label_file(datastore: Datastore, image_id: str) -> Path:
    return Path(datastore.get_label_uri(image_id, DefaultLabelTag.FINAL.value))


def by_model(info: Mapping[str, Any]) -> bool:
    """Whether a label is what a model said and nobody submitted."""
    return "model" in info and "label_info" not in info


def voxel_names(
    info: Mapping[str, Any], what: str, description: StudiesDescription, labels: Mapping[str, int]
) -> dict[int, str | None]:
    """Voxel value -> label name.

    Slicer gives the n-th entry of `label_info` the voxel value n; its `idx` also counts segments that
    were not sent and is not to be used. Labels without `label_info` are read by dataset.json, else by
    the app's own dictionary.

    Args:
        info: the label's info in the datastore, or the parameters of a submission.
        what: how messages call the label.
        description: what dataset.json says.
        labels: the app's dictionary.

    Raises:
        FewshotError: if names are missing or cannot be names.
    """
    entries = info.get("label_info")
    if entries:
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise FewshotError(f'{what} has a label_info that is not a list of {{"name", "idx"}}.')
        listed = [entry.get("name") for entry in entries]
        return {
            value: None if name in NOT_LABELS else clean_name(name)
            for value, name in enumerate(listed, start=1)
        }
    by_value = description.labels or labels
    if not by_value:
        raise FewshotError(
            f"{what} does not name its structures: submit it with label_info, put a dataset.json with "
            '{"labels": {"name": value}} beside the studies, or start the server with --conf labels.'
        )
    return {value: name for name, value in by_value.items()}


def read_template(
    submission: Submission,
    image: Path,
    *,
    description: StudiesDescription,
    labels: LabelDictionary,
    complete: bool,
) -> Template:
    """A submission as the engine takes it, with the app's own label values.

    Raises:
        FewshotError: if image or label cannot be had or read, or do not belong together.
    """
    from fewshot.support import Template
    from fewshot.volumes import read_labels

    volume = read_image(image, description)
    what = f"The label of {submission.image_id}"
    drawn = read_labels(submission.file(), volume)
    check_values(drawn, submission.names, what)
    labels.add(name for name in submission.names.values() if name)
    lookup = np.zeros(int(drawn.max()) + 1, np.uint16)
    names: dict[str, int] = {}
    for value, name in submission.names.items():
        known = labels.current(name) if name else None
        if known:
            names[known[0]] = known[1]
            if value < len(lookup):
                lookup[value] = known[1]
    return Template(volume=volume, labels=lookup[drawn], names=names, complete=complete)


def check_values(drawn: np.ndarray, names: Mapping[int, str | None], what: str) -> None:
    """Refuse a label map with nothing in it, or with a value that has no name.

    Raises:
        FewshotError: in these cases.
    """
    present = [int(value) for value in np.flatnonzero(np.bincount(drawn.ravel())) if value]
    if not any(names.get(value, value) for value in present):
        raise FewshotError(f"{what} is empty: draw at least one structure on one slice.")
    if unnamed := [value for value in present if value not in names]:
        raise FewshotError(
            f"{what} holds the value {unnamed[0]}, which has no name: its names are "
            f"{', '.join(f'{value} {name}' for value, name in names.items())}."
        )


def read_image(path: Path, description: StudiesDescription) -> Volume:
    """Read an image of the studies, with the modality that dataset.json or the PACS says.

    Raises:
        FewshotError: if it cannot be read as one volume.
    """
    from fewshot.volumes import read_volume

    return read_volume(path, modality=description.modality or note_of(path).get("modality") or None)
