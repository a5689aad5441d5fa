"""What a folder holds, before anything is read: the common form of all layouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fewshot.volumes.channels import Channel


@dataclass(frozen=True)
class Case:
    """One study of a dataset: an image and, where somebody drew or marked any, its labels and its landmarks.

    Attributes:
        name: of the case, without extension.
        image: its file, or a folder with one DICOM series.
        label: a label map, or (`masks`) a folder with one mask per label; None without any.
        masks: whether `label` is a folder of masks.
        landmarks: a file with points; None without any.
        channel: which channel of an image with several counts; None refuses such images.
        modality: of this image, where it may differ from the others'.
        notes: what finding its files had to decide.
    """

    name: str
    image: Path
    label: Path | None
    masks: bool = False
    landmarks: Path | None = None
    channel: Channel | None = None
    modality: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What a layout says of a dataset.

    Attributes:
        source: the file or folder that says so, for messages.
        name: of the dataset.
        cases: by name, in the order of their names.
        labels: label name -> value.
        landmarks: their names; empty where no case has a file with points.
        modality: "CT", "MR", "XR" or "".
        hounsfield: False for a CT in other units.
        complete: whether a slice without label is background.
        ignored: further values that count as background.
        missing: case -> why its image or its labels cannot be used.
        unlabelled: those of `missing` for which no labels are listed either.
    """

    source: Path
    name: str
    cases: dict[str, Case]
    labels: dict[str, int]
    landmarks: tuple[str, ...] = ()
    modality: str = ""
    hounsfield: bool = True
    complete: bool = False
    ignored: frozenset[int] = frozenset()
    missing: dict[str, str] = field(default_factory=dict)
    unlabelled: frozenset[str] = frozenset()
