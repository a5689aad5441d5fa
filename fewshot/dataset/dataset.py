"""A dataset: its cases, what their labels and landmarks mean, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fewshot.dataset.case import Case, Contents
from fewshot.dataset.files import check_known
from fewshot.dataset.layouts import read_contents
from fewshot.dataset.points import FOLDER, centres_of, read_case
from fewshot.dataset.subjects import read_masks
from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkTemplate
from fewshot.landmarks.reading import Marks
from fewshot.support import Template
from fewshot.volumes import Volume, read_volume
from fewshot.volumes.channels import read_channel
from fewshot.volumes.labels import place_labels, values_in


@dataclass(frozen=True)
class Dataset:
    """The cases of one folder and what their labels or their landmarks mean.

    Three layouts are read (docs/how-to/datasets.md):

    - the engine's own: `images/NAME.nii.gz`, `labels/NAME.nii.gz` and `dataset.json` such as
      `{"labels": {"liver": 1, "spleen": 2}, "modality": "CT", "complete": true, "ignore": [3]}`; or, with landmarks,
      `landmarks/NAME.json` or `landmarks/NAME.mrk.json` and `{"landmarks": ["nasion", "inion"]}`;
    - the Medical Segmentation Decathlon's, with what nnU-Net and MONAI made of it: a `dataset.json` that lists
      files, or lies beside `imagesTr/` and `labelsTr/`;
    - TotalSegmentator's: a folder per subject with `ct.nii.gz` or `mri.nii.gz` and a mask per structure in
      `segmentations/`.

    Attributes:
        folder: where it lies.
        name: for tables and reports.
        cases: by name.
        labels: label name -> value.
        landmarks: those that count, where the dataset was opened for landmarks; empty where it was for labels.
        known: all landmarks that its files may name; empty where landmarks are the centres of labels.
        modality: "CT", "MR", "XR", or "" where it is not known or not the same for all.
        hounsfield: False for a CT that is not in Hounsfield units: it counts as unknown modality, and its
            window follows its values as for MR. (A CT without the values of air is windowed so anyway.)
        complete: True where a slice without any label is background in every label map. Else such slices of a
            template are unknown, and nothing is learned from them. In the same way, a landmark of which a case says
            nothing is absent from it, or unknown.
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
    landmarks: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        labels: Sequence[str] | None = None,
        landmarks: Sequence[str] | Literal["all"] | None = None,
    ) -> Dataset:
        """List a dataset without reading any image.

        It is one of labels if it has any and no landmarks are asked for, else one of landmarks.

        Args:
            folder: see the class; or its dataset.json.
            labels: only these labels; the others count as background. All by default.
            landmarks: these landmarks, or all; where it has no files of points, the centres of its labels.

        Raises:
            FewshotError: a folder that is missing or has none of the layouts, an invalid dataset.json, a label
                map without image, two files with one case name, no file at all, an unknown label or landmark, or
                both asked for.
        """
        folder = Path(folder)
        found = read_contents(folder)
        if not found.cases:
            raise FewshotError(
                f"None of the {len(found.missing)} cases of {found.source} can be used. "
                f"{next(iter(found.missing.values()))}"
            )
        points = _landmarks(found, labels, landmarks)
        if points and not found.landmarks:
            labels = points
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
            landmarks=points,
            known=frozenset(found.landmarks if points else ()),
        )

    @property
    def labelled(self) -> dict[str, Case]:
        """The cases with a label map; of a dataset of landmarks those with a file of points, if it has such files."""
        return {
            name: case for name, case in self.cases.items() if (case.landmarks if self.known else case.label)
        }

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

    def read_marks(self, case: Case, volume: Volume) -> Marks:
        """Read where a case's landmarks are.

        Returns:
            Landmark -> mark, and those that are absent; what is in neither is unknown. Of labels, these are the centre
            of each, unknown where the label touches the border of the image.

        Raises:
            FewshotError: the case has no landmarks, or its file cannot be read, names an unknown landmark, or gives a
                place outside the image.
        """
        if not self.known:
            labels, _ = self.read_labels(case, volume)
            chosen = {name: self.labels[name] for name in self.landmarks}
            return centres_of(labels, chosen, volume, complete=self.complete)
        if case.landmarks is None:
            reason = self.missing.get(case.name)
            raise FewshotError(reason or f"{case.image} has no landmarks in {self.folder / FOLDER}.")
        marks, absent = read_case(case.landmarks, volume, self.known, self.landmarks)
        return marks, frozenset({*self.landmarks} - marks.keys()) if self.complete else absent

    def landmark_template(self, case: Case) -> LandmarkTemplate:
        """Read a case with landmarks as a template volume.

        Raises:
            FewshotError: as `volume` and `read_marks` do, or it has none of the landmarks.
        """
        volume = self.volume(case)
        marks, absent = self.read_marks(case, volume)
        if not marks:
            raise FewshotError(
                f"{case.landmarks or case.label} has none of the landmarks {', '.join(self.landmarks)}: choose another "
                "template."
            )
        return LandmarkTemplate(volume, marks, absent)

    def _require_files(self, names: Sequence[str]) -> None:
        """Refuse cases of which the dataset lists files that are not there."""
        for name in names:
            if name in self.missing:
                raise FewshotError(self.missing[name])


def _landmarks(
    found: Contents, labels: Sequence[str] | None, asked: Sequence[str] | Literal["all"] | None
) -> tuple[str, ...]:
    """The landmarks that a dataset is opened for; none if it is opened for labels."""
    if asked is None:
        drawn = labels is not None or any(case.label for case in found.cases.values())
        return () if drawn else found.landmarks
    if labels is not None:
        raise FewshotError("Ask for labels or for landmarks, not for both.")
    known = found.landmarks or tuple(found.labels)
    if not known or not asked:
        raise FewshotError(
            f"No landmark of {found.source} is asked for; it has {', '.join(known) or 'none'}."
        )
    if asked == "all":
        return known
    check_known(asked, known, f"landmark in {found.source}")
    return tuple(dict.fromkeys(asked))
