"""The volumes of a folder, labelled or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fewshot.dataset.dataset import Dataset
from fewshot.dataset.files import list_files
from fewshot.dataset.layouts import is_described
from fewshot.errors import FewshotError
from fewshot.volumes import Volume, read_volume


def study_readers(folder: Path) -> dict[str, Callable[[], Volume]]:
    """How to read each volume of a folder; those of a dataset as it says (modality, channel).

    Args:
        folder: volumes and DICOM folders, with or without ``images/`` around them, or a dataset in any layout.

    Returns:
        Case name -> what reads it. The one of a file that a dataset lists and does not have fails.

    Raises:
        FewshotError: if the folder is missing or holds no volume.
    """
    if not folder.is_dir():
        raise FewshotError(f"There is no folder {folder}; give a folder of volumes.")
    readers: dict[str, Callable[[], Volume]] = {}
    if is_described(folder):
        dataset = Dataset.open(folder)
        readers |= {name: partial(_fail, why) for name, why in dataset.missing.items()}
        readers |= {name: partial(dataset.volume, case) for name, case in dataset.cases.items()}
        return readers
    images = folder / "images" if (folder / "images").is_dir() else folder
    readers |= {name: partial(read_volume, path) for name, path in list_files(images).items()}
    if not readers:
        raise FewshotError(f"{folder} holds no volume that can be read.")
    return readers


def _fail(reason: str) -> Volume:
    raise FewshotError(reason)
