"""Which of the layouts a folder has, by what is in it."""

from __future__ import annotations

from pathlib import Path

from fewshot.dataset.case import Contents
from fewshot.dataset.decathlon import is_decathlon, read_decathlon
from fewshot.dataset.description import read_json
from fewshot.dataset.own import read_own
from fewshot.dataset.points import FOLDER
from fewshot.dataset.subjects import are_subjects, read_subjects
from fewshot.errors import FewshotError

DESCRIPTION = "dataset.json"


def read_contents(path: Path) -> Contents:
    """List a dataset in any layout without reading an image.

    Args:
        path: its folder, or the dataset.json in it (whatever its name).

    Raises:
        FewshotError: there is nothing at `path`, it has none of the layouts, or its own cannot be read.
    """
    if path.is_dir():
        folder, description = path, path / DESCRIPTION
    elif path.is_file() and path.suffix.lower() == ".json":
        folder, description = path.parent, path
    elif path.exists():
        raise FewshotError(f"{path} is no dataset: give its folder or its dataset.json.")
    else:
        raise FewshotError(f"There is no dataset folder {path}: check the path.")
    fields = read_json(description) if description.is_file() else {}
    if is_decathlon(folder, fields):
        return read_decathlon(folder, description, fields)
    if (folder / "images").is_dir() or (fields and any((folder / of).is_dir() for of in ("labels", FOLDER))):
        return read_own(folder, description)
    if are_subjects(folder):
        return read_subjects(folder)
    raise FewshotError(
        f"{folder} has none of the layouts of a dataset: it needs images/, labels/ or landmarks/, and dataset.json; or "
        'a dataset.json with the list "training" or beside imagesTr/ (Medical Segmentation Decathlon, nnU-Net, MONAI); '
        "or a folder per subject with ct.nii.gz or mri.nii.gz and segmentations/ (TotalSegmentator)."
    )


def is_described(folder: Path) -> bool:
    """Whether a folder is a dataset that says more of its images than their files do.

    Raises:
        FewshotError: it has a dataset.json that cannot be read.
    """
    description = folder / DESCRIPTION
    fields = read_json(description) if description.is_file() else {}
    if is_decathlon(folder, fields):
        return True
    if (folder / "images").is_dir():
        return description.is_file()
    return are_subjects(folder)
