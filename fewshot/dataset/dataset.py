"""A labelled dataset: its cases, what their label values mean, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fewshot.dataset.case import Case
from fewshot.dataset.files import check_known
from fewshot.dataset.layouts import read_contents
from fewshot.dataset.subjects import read_masks
from fewshot.errors import FewshotError
from fewshot.support import Template
from fewshot.volumes import Volume, read_volume
from fewshot.volumes.channels import read_channel
from fewshot.volumes.labels import place_labels, values_in


@dataclass(frozen=True)
class Dataset:
    """The cases of one folder and what their label values mean.

    Three layouts are read (docs/how-to/datasets.md):

    - the engine's own: `images/NAME.nii.gz`, `labels/NAME.nii.gz` and `dataset.json` such as
      `{"labels": {"liver": 1, "spleen": 2}, "modality": "CT", "complete": true, "ignore": [3]}`;
    - the Medical Segmentation Decathlon's, with what nnU-Net and MONAI made of it: a `dataset.json` that lists
      files, or lies beside `imagesTr/` and `labelsTr/`;
    - TotalSegmentator's: a folder per subject with `ct.nii.gz` or `mri.nii.gz` and a mask per structure in
      `segmentations/`.

    Attributes:
        folder: where it lies.
        name: for tables and reports.
        cases: by name.
        labels: label name -> value.
        modality: "CT", "MR", "XR", or "" where it is not known or not the same for all.
        hounsfield: False for a CT that is not in Hounsfield units: it counts as unknown modality, and its
            window follows its values as for MR. (A CT without the values of air is windowed so anyway.)
        complete: True where a slice without any label is background in every label map. Else such slices of a
            template are unknown, and nothing is learned from them.
        ignored: further values that may occur in label maps and count as background. Other values are errors.
        missing: case -> why its image or its labels, which the dataset lists, cannot be used.
        unlabelled: those of `missing` for which no labels are listed either, such as a challenge's test images.
        source: the file or folder that says all this, for messages.
    """

    folder: Path
    name: str
    cases: dict[str, Case]
    labels: dict[str, int]
    modality: str
    hounsfield: bool = True
    complete: bool = False
    ignored: frozenset[int] = frozenset()
    missing: dict[str, str] = field(default_factory=dict)
    unlabelled: frozenset[str] = frozenset()
    source: Path | None = None

    @classmethod
    def open(cls, folder: Path | str, *, labels: Sequence[str] | None = None) -> Dataset:
        """List a dataset without reading any image.

        Args:
            folder: see the class; or its dataset.json.
            labels: only these labels; the others count as background. All by default.

        Raises:
            FewshotError: a folder that is missing or has none of the layouts, an invalid dataset.json, a label
                map without image, two files with one case name, no file at all, or an unknown label.
        """
        folder = Path(folder)
        found = read_contents(folder)
        if not found.cases:
            raise FewshotError(
                f"None of the {len(found.missing)} cases of {found.source} can be used. "
                f"{next(iter(found.missing.values()))}"
            )
        if labels is not None:
            check_known(labels, found.labels, f"label in {found.source}")
        chosen = {name: value for name, value in found.labels.items() if labels is None or name in labels}
        return cls(
            folder=folder if folder.is_dir() else folder.parent,
            name=found.name,
            cases=found.cases,
            labels=chosen,
            modality=found.modality,
            hounsfield=found.hounsfield,
            complete=found.complete,
            ignored=frozenset({*found.ignored, *found.labels.values()} - {*chosen.values()}),
            missing=found.missing,
            unlabelled=found.unlabelled,
            source=found.source,
        )

    @property
    def labelled(self) -> dict[str, Case]:
        """The cases with a label map."""
        return {name: case for name, case in self.cases.items() if case.label}

    @property
    def lost(self) -> dict[str, str]:
        """The labelled cases that cannot be used, because a file of theirs is missing -> why."""
        return {name: why for name, why in self.missing.items() if name not in self.unlabelled}

    def choose(self, names: Sequence[str]) -> list[Case]:
        """The labelled cases of these names.

        Raises:
            FewshotError: a name that is unknown or not labelled, with those that come near.
        """
        self._require_files(names)
        check_known(names, self.labelled, f"labelled case in {self.folder}")
        return [self.labelled[name] for name in dict.fromkeys(names)]

    def only(self, names: Sequence[str]) -> Dataset:
        """The same dataset with these cases alone.

        Raises:
            FewshotError: a name that is unknown, with those that come near.
        """
        self._require_files([name for name in names if name not in self.cases])
        check_known(names, self.cases, f"case in {self.folder}")
        return replace(
            self,
            cases={name: case for name, case in self.cases.items() if name in names},
            missing={name: why for name, why in self.missing.items() if name in names},
        )

    def volume(self, case: Case) -> Volume:
        """Read a case's image, named as in the dataset."""
        modality = case.modality or self.modality or None
        if case.channel is None:
            volume = read_volume(case.image, modality=modality)
        else:
            volume = read_channel(case.image, case.channel, modality=modality)
        volume = replace(volume, name=case.name, notes=(*volume.notes, *case.notes))
        if volume.modality == "CT" and not self.hounsfield:
            return replace(volume, modality="", notes=(*volume.notes, "a CT that is not in Hounsfield units"))
        return volume

    def read_labels(self, case: Case, like: Volume) -> tuple[np.ndarray, tuple[str, ...]]:
        """Read a case's labels onto the grid of its volume.

        Labels on another grid are resampled if both files say where their voxels lie (`place_labels`).

        Returns:
            The label map uint16 [X, Y, Z], ignored values set to 0, and notes on what had to be decided.

        Raises:
            FewshotError: the case has no labels, they do not belong to its image, or they hold a value that the
                dataset does not name.
        """
        if case.label is None:
            reason = self.missing.get(case.name)
            raise FewshotError(reason or f"{case.image} has no label map in {self.folder / 'labels'}.")
        if case.masks:
            return read_masks(case.label, self.labels, like)
        labels, notes = place_labels(case.label, like, ignored=self.ignored)
        unknown = sorted(values_in(labels) - {*self.labels.values()} - self.ignored)
        if unknown:
            raise FewshotError(
                f"{case.label} holds the value {', '.join(map(str, unknown[:5]))}, unknown to "
                f'{self.source}: name it in "labels", or list it in "ignore" as background.'
            )
        kept = np.where(np.isin(labels, [*self.ignored]), np.uint16(0), labels)
        return np.ascontiguousarray(kept), notes

    def label_map(self, case: Case, like: Volume) -> np.ndarray:
        """The label map of `read_labels`, without its notes."""
        return self.read_labels(case, like)[0]

    def template(self, case: Case) -> Template:
        """Read a labelled case as a template (support) volume; its volume's notes tell what had to be decided.

        Raises:
            FewshotError: as `volume` and `read_labels` do, or none of the labels occurs in it.
        """
        volume = self.volume(case)
        labels, notes = self.read_labels(case, volume)
        if not labels.any():
            raise FewshotError(
                f"{case.label} holds none of the labels {', '.join(self.labels)}: choose another template."
            )
        volume = replace(volume, notes=(*volume.notes, *notes))
        return Template(volume=volume, labels=labels, names=dict(self.labels), complete=self.complete)

    def _require_files(self, names: Sequence[str]) -> None:
        """Refuse cases of which the dataset lists files that are not there."""
        for name in names:
            if name in self.missing:
                raise FewshotError(self.missing[name])
