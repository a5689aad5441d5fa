"""The layout of TotalSegmentator's data: one folder per subject, in it one binary mask per structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewshot.dataset.case import Case, Contents
from fewshot.dataset.files import list_files
from fewshot.errors import FewshotError
from fewshot.volumes import Volume
from fewshot.volumes.labels import place_labels
from fewshot.volumes.raw import NIFTI

IMAGES = {
    f"{stem}{extension}": modality for stem, modality in (("ct", "CT"), ("mri", "MR")) for extension in NIFTI
}
"""Names of a subject's image, and the modality that they say."""
MASKS = "segmentations"


def are_subjects(folder: Path) -> bool:
    """Whether a folder holds at least one subject with an image."""
    return any((subject / name).is_file() for subject in _subfolders(folder) for name in IMAGES)


def read_subjects(folder: Path) -> Contents:
    """List the subjects and, from the names of the masks alone, the structures of all of them together.

    Structures are numbered from 1 in alphabetical order, whichever of them a subject has. A subject without a
    mask of some structure counts as one without that structure, so the labels are complete.

    Raises:
        FewshotError: a subject has two images, or two masks of one name.
    """
    cases: dict[str, Case] = {}
    missing: dict[str, str] = {}
    structures: set[str] = set()
    for subject in _subfolders(folder):
        images = [subject / name for name in IMAGES if (subject / name).is_file()]
        masks = _masks(subject / MASKS)
        if len(images) > 1:
            raise FewshotError(
                f"{subject} has two images, {images[0].name} and {images[1].name}: remove one."
            )
        if images:
            label = subject / MASKS if masks else None
            modality = IMAGES[images[0].name]
            cases[subject.name] = Case(subject.name, images[0], label, masks=bool(masks), modality=modality)
            structures |= masks.keys()
        elif masks:
            missing[subject.name] = f"{subject} has {MASKS} but no image: add ct.nii.gz or mri.nii.gz."
    modalities = {case.modality for case in cases.values()}
    return Contents(
        source=folder,
        name=folder.resolve().name,
        cases=cases,
        labels={name: value for value, name in enumerate(sorted(structures), start=1)},
        modality=modalities.pop() if len(modalities) == 1 else "",
        complete=True,
        missing=missing,
    )


def read_masks(folder: Path, labels: Mapping[str, int], like: Volume) -> tuple[np.ndarray, tuple[str, ...]]:
    """Join a subject's masks to one label map, reading no others than those of `labels`.

    Where masks overlap, the label of the higher value counts.

    Args:
        folder: the masks, NAME.nii.gz.
        labels: name -> value; one without a mask is absent.
        like: the subject's image.

    Returns:
        Label values uint16 [X, Y, Z] on the grid of `like`, and notes on overlaps and resampling.

    Raises:
        FewshotError: a mask cannot be read, holds more than one value, or does not belong to the image.
    """
    masks = _masks(folder)
    # NIfTI files have their first axis innermost; turned around, indexing is many times faster
    joined = np.zeros(like.shape[::-1], np.uint16)
    twice = 0
    resampled: list[str] = []
    for name, value in sorted(labels.items(), key=lambda item: item[1]):
        if name not in masks:
            continue
        mask, notes = place_labels(masks[name], like)
        inside = mask.T > 0
        if len(values := np.unique(mask.T[inside])) > 1:
            raise FewshotError(
                f"{masks[name]} holds the values {', '.join(map(str, values[:5]))}: "
                "a mask has one value besides 0, for one structure."
            )
        resampled += notes
        twice += int(np.count_nonzero(joined[inside]))
        joined[inside] = value
    said = resampled[:1]
    if resampled[1:]:
        said = [f"{resampled[0]} (and {len(resampled) - 1} others)"]
    if twice:
        said.append(f"{twice} voxels lie in several masks of {folder}: the last label in order counts")
    return np.ascontiguousarray(joined.T), tuple(said)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _masks(folder: Path) -> dict[str, Path]:
    return {name: path for name, path in list_files(folder).items() if path.is_file()}
