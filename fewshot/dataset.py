"""A folder of images, label maps and one dataset.json: what `fewshot fit` and `fewshot evaluate` read."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.errors import FewshotError
from fewshot.support import Template
from fewshot.volumes import Volume, modality_of, read_labels, read_volume
from fewshot.volumes.raw import EXTENSIONS, case_name, extension_of

FIELDS: dict[str, tuple[type, str]] = {
    "labels": (dict, 'names and values such as {"liver": 1}'),
    "modality": (str, 'a text such as "CT" or "MR"'),
    "hounsfield": (bool, "true or false"),
    "complete": (bool, "true or false"),
    "ignore": (list, "a list of label values"),
}
"""What dataset.json may say; other keys (name, licence, source...) are for people."""


SERVER_FOLDERS = ("labels", "final", "original")
"""Folders that MONAI Label makes in a folder that it serves; they hold submitted labels, not series."""


@dataclass(frozen=True)
class Case:
    """One study of a dataset: an image and, where somebody drew one, its label map."""

    name: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """The cases of one folder and what their label values mean.

    The folder holds `images/NAME.nii.gz` and `labels/NAME.nii.gz` (or another ending that the engine
    reads, not necessarily the same one; a subfolder of images/ is a DICOM series) and `dataset.json`:

    ```json
    {"labels": {"liver": 1, "spleen": 2}, "modality": "CT", "complete": true, "ignore": [3]}
    ```

    - `labels`: the name of every value in the label maps.
    - `modality`: free text from which CT, MR or X-ray (XR) is read.
    - `hounsfield`: false for a CT that is not in Hounsfield units: it counts as unknown modality, and its
      window follows its values as for MR. (A CT without the values of air is windowed so anyway.)
    - `complete`: true where a slice without any label is background in every label map. Else (the default)
      such slices of a template are unknown, and nothing is learned from them.
    - `ignore`: further values that may occur and count as background. Other values are errors.
    """

    folder: Path
    name: str
    cases: dict[str, Case]
    labels: dict[str, int]
    modality: str
    hounsfield: bool = True
    complete: bool = False
    ignored: frozenset[int] = frozenset()

    @classmethod
    def open(cls, folder: Path | str, *, labels: Sequence[str] | None = None) -> Dataset:
        """List a dataset without reading any image.

        Args:
            folder: see the class.
            labels: only these labels; the others count as background. All by default.

        Raises:
            FewshotError: a missing folder or file, an invalid dataset.json, a label map without image,
                two files with one case name, or an unknown label.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FewshotError(f"There is no dataset folder {folder}: check the path.")
        description = folder / "dataset.json"
        fields = _read_json(description)
        declared = _labels(fields.get("labels", {}), description)
        images, drawn = list_files(folder / "images"), list_files(folder / "labels")
        if not images:
            raise FewshotError(
                f"{folder / 'images'} holds no image: put files there ({', '.join(EXTENSIONS)})."
            )
        for name in sorted(drawn.keys() - images.keys()):
            raise FewshotError(f"{drawn[name]} has no image {name} in {folder / 'images'}: add it or rename.")
        if labels is not None:
            _check_known(labels, declared, f"label in {description}")
        chosen = {name: value for name, value in declared.items() if labels is None or name in labels}
        return cls(
            folder=folder,
            name=str(fields.get("name") or folder.resolve().name),
            cases={name: Case(name, image, drawn.get(name)) for name, image in sorted(images.items())},
            labels=chosen,
            modality=modality_of(fields.get("modality", "")),
            hounsfield=fields.get("hounsfield", True),
            complete=fields.get("complete", False),
            ignored=frozenset({*fields.get("ignore", ()), *declared.values()} - {*chosen.values()}),
        )

    @property
    def labelled(self) -> dict[str, Case]:
        """The cases with a label map."""
        return {name: case for name, case in self.cases.items() if case.label}

    def choose(self, names: Sequence[str]) -> list[Case]:
        """The labelled cases of these names.

        Raises:
            FewshotError: a name that is unknown or not labelled, with those that come near.
        """
        _check_known(names, self.labelled, f"labelled case in {self.folder}")
        return [self.labelled[name] for name in dict.fromkeys(names)]

    def only(self, names: Sequence[str]) -> Dataset:
        """The same dataset with these cases alone.

        Raises:
            FewshotError: a name that is unknown, with those that come near.
        """
        _check_known(names, self.cases, f"case in {self.folder}")
        return replace(self, cases={name: case for name, case in self.cases.items() if name in names})

    def volume(self, case: Case) -> Volume:
        """Read a case's image, named as in the dataset."""
        volume = replace(read_volume(case.image, modality=self.modality or None), name=case.name)
        if volume.modality == "CT" and not self.hounsfield:
            return replace(volume, modality="", notes=(*volume.notes, "a CT that is not in Hounsfield units"))
        return volume

    def label_map(self, case: Case, like: Volume) -> np.ndarray:
        """Read a case's label map [X, Y, Z] on the grid of its volume, ignored values set to 0.

        Raises:
            FewshotError: the case has no label map, or it holds a value that dataset.json does not name.
        """
        if case.label is None:
            raise FewshotError(f"{case.image} has no label map in {self.folder / 'labels'}.")
        labels = read_labels(case.label, like)
        present = set(np.flatnonzero(np.bincount(labels.ravel())).tolist()) - {0}
        unknown = sorted(present - {*self.labels.values()} - self.ignored)
        if unknown:
            raise FewshotError(
                f"{case.label} holds the value {', '.join(map(str, unknown[:5]))}, unknown to "
                f'{self.folder / "dataset.json"}: name it in "labels", or list it in "ignore" as background.'
            )
        return np.where(np.isin(labels, [*self.ignored]), np.uint16(0), labels)

    def template(self, case: Case) -> Template:
        """Read a labelled case as a template (support) volume."""
        volume = self.volume(case)
        labels = self.label_map(case, volume)
        return Template(volume=volume, labels=labels, names=dict(self.labels), complete=self.complete)


def study_readers(folder: Path) -> dict[str, Callable[[], Volume]]:
    """How to read each volume of a folder; those of a dataset with the modality that its dataset.json says.

    Args:
        folder: volumes and DICOM folders, or a dataset with ``images/``.

    Raises:
        FewshotError: if the folder is missing or holds no volume.
    """
    if not folder.is_dir():
        raise FewshotError(f"There is no folder {folder}; give a folder of volumes.")
    if (folder / "dataset.json").exists() and (folder / "images").is_dir():
        dataset = Dataset.open(folder)
        return {name: partial(dataset.volume, case) for name, case in dataset.cases.items()}
    images = folder / "images" if (folder / "images").is_dir() else folder
    readers: dict[str, Callable[[], Volume]] = {
        name: partial(read_volume, path) for name, path in list_files(images).items()
    }
    if not readers:
        raise FewshotError(f"{folder} holds no volume that can be read.")
    return readers


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a mark
    except FileNotFoundError:
        raise FewshotError(
            f"{path.resolve()} is missing: it names the label values, such as "
            '{"labels": {"liver": 1, "spleen": 2}, "modality": "CT"}.'
        ) from None
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise FewshotError(f'{path} must hold an object such as {{"labels": {{"liver": 1}}}}.')
    for key, (kind, form) in FIELDS.items():
        if key in fields and not isinstance(fields[key], kind):
            raise FewshotError(f'"{key}" in {path} is {fields[key]!r}: it must be {form}.')
    if not all(type(value) is int for value in fields.get("ignore", ())):
        raise FewshotError(f'"ignore" in {path} is {fields["ignore"]!r}: it must be a list of label values.')
    return fields


def _labels(declared: dict[str, Any], path: Path) -> dict[str, int]:
    """Check label names and values; a "background" of value 0 may be declared but is not a label."""
    labels = {name: value for name, value in declared.items() if (name, value) != ("background", 0)}
    owners: dict[int, str] = {}
    for name, value in labels.items():
        if type(value) is not int or not 1 <= value <= 65535:
            raise FewshotError(
                f'Label "{name}" in {path} has the value {value!r}: write {{"name": 1}}, values 1 to 65535.'
            )
        if not name.strip():
            raise FewshotError(f"The label of value {value} in {path} has no name: give it one.")
        if value in owners:
            raise FewshotError(
                f'Labels "{owners[value]}" and "{name}" in {path} share the value {value}: give each its own.'
            )
        owners[value] = name
    return labels


def list_files(folder: Path) -> dict[str, Path]:
    """Images or label maps of a folder by case name; subfolders are DICOM series, but those of MONAI Label are not."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not (path.is_dir() or extension_of(path)):
            continue
        if path.is_dir() and path.name in SERVER_FOLDERS:
            continue
        name = case_name(path)
        if name in found:
            raise FewshotError(f"{found[name]} and {path} are both called {name}: rename or remove one.")
        found[name] = path
    return found


def _check_known(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Refuse names that are not known, and say which come near."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:3]
            meant = f"did you mean {', '.join(near)}?" if near else "there is none."
            raise FewshotError(f'There is no {what} "{name}": {meant}')
