"""The engine's own layout: images/, labels/ or landmarks/, and a dataset.json that names what they hold."""

from __future__ import annotations

from pathlib import Path

from fewshot.dataset.case import Case, Contents
from fewshot.dataset.description import OPTIONS, check_fields, check_labels, read_json
from fewshot.dataset.files import list_files
from fewshot.dataset.points import FOLDER, declared_names, list_point_files, names_in_files
from fewshot.errors import FewshotError
from fewshot.volumes import modality_of
from fewshot.volumes.channels import Channel
from fewshot.volumes.raw import EXTENSIONS

FIELDS: dict[str, tuple[type, str]] = {
    "labels": (dict, 'names and values such as {"liver": 1}'),
    "landmarks": (list, 'a list of names such as ["nasion", "inion"]'),
    "modality": (str, 'a text such as "CT" or "MR"'),
    **OPTIONS,
}
"""What dataset.json may say; other keys (name, licence, source...) are for people."""


def read_own(folder: Path, description: Path) -> Contents:
    """List `images/NAME.nii.gz`, `labels/NAME.nii.gz` (or other endings) and `landmarks/NAME.json` or `.mrk.json`.

    A subfolder of images/ is a DICOM series. Where dataset.json does not list the landmarks, they are those that the
    files name, and a file that cannot be read is missing.

    Raises:
        FewshotError: an invalid dataset.json, no image, labels or landmarks without image, two files of one name, no
            file of landmarks that can be read.
    """
    fields = read_json(description)
    check_fields(fields, FIELDS, description)
    declared = fields.get("labels", {})
    labels = check_labels(
        {name: value for name, value in declared.items() if (name, value) != ("background", 0)}, description
    )
    images, drawn = list_files(folder / "images"), list_files(folder / "labels")
    points = list_point_files(folder / FOLDER)
    if not images:
        raise FewshotError(f"{folder / 'images'} holds no image: put files there ({', '.join(EXTENSIONS)}).")
    for files in (drawn, points):
        for name in sorted(files.keys() - images.keys()):
            raise FewshotError(f"{files[name]} has no image {name} in {folder / 'images'}: add it or rename.")
    channel = fields.get("channel")
    if channel is not None and (type(channel) is not int or channel < 0):
        raise FewshotError(f'"channel" in {description} is {channel!r}: it must be a number from 0.')
    used = Channel(channel) if channel is not None else None
    failed: dict[str, str] = {}
    landmarks = declared_names(fields, description)
    if points and not landmarks:
        landmarks, failed = names_in_files(points)
    if points and not landmarks:
        raise FewshotError(next(iter(failed.values()), f"No file in {folder / FOLDER} names a landmark."))
    usable = {name: path for name, path in points.items() if name not in failed}
    return Contents(
        source=description,
        name=str(fields.get("name") or folder.resolve().name),
        cases={
            name: Case(name, image, drawn.get(name), landmarks=usable.get(name), channel=used)
            for name, image in sorted(images.items())
        },
        labels=labels,
        landmarks=landmarks if points else (),
        modality=modality_of(fields.get("modality", "")),
        hounsfield=fields.get("hounsfield", True),
        complete=fields.get("complete", False),
        ignored=frozenset(fields.get("ignore", ())),
        missing=failed,
    )
