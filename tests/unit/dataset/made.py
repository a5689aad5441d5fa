"""Small datasets in the layouts of others, with the quirks of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])
AFFINE[:3, 3] = -40, 20, 7


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Save a small volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def image(seed: int = 0, channels: int = 0) -> np.ndarray:
    """Values of soft tissue and air, each channel 1000 above the one before."""
    array = np.random.default_rng(seed).normal(-300, 200, SHAPE).astype(np.float32)
    return np.stack([array + 1000 * each for each in range(channels)], axis=-1) if channels else array


def labels() -> np.ndarray:
    """Two labels."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 1:3, 1], array[3:5, 1:3, 2] = 1, 2
    return array


def describe(folder: Path, file: str = "dataset.json", **fields: Any) -> Path:
    """Write a dataset.json."""
    (folder / file).write_text(json.dumps(fields))
    return folder


def msd(folder: Path, *, channels: int = 0, **changes: Any) -> Path:
    """A dataset as the Decathlon's archives hold it: two labelled cases and one for testing."""
    for number, name in enumerate(("liver_0", "liver_1")):
        write(folder / "imagesTr" / f"{name}.nii.gz", image(number, channels))
        write(folder / "labelsTr" / f"{name}.nii.gz", labels().astype(np.float32))
    write(folder / "imagesTs" / "liver_9.nii.gz", image(9, channels))
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part / "._liver_0.nii.gz").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    listed = [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"} for n in (1, 0)
    ]
    fields = {
        "name": "Liver",
        "description": "Liver and cancer",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": 2,
        "numTest": 1,
        "training": listed,
        "test": ["./imagesTs/liver_9.nii.gz"],
    }
    return describe(folder, **{key: value for key, value in (fields | changes).items() if value is not None})


def nnunet(folder: Path, **changes: Any) -> Path:
    """The same cases as nnU-Net 2 wants them, with two channels."""
    for number, name in enumerate(("liver_0", "liver_1")):
        for channel in range(2):
            write(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image(number) + 1000 * channel)
        write(folder / "labelsTr" / f"{name}.nii.gz", labels())
    fields = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "liver": 1, "cancer": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    return describe(folder, **(fields | changes))


def totalsegmentator(folder: Path) -> Path:
    """Three subjects: the second has no mask of the spleen, the third none at all."""
    for number, masks in enumerate((("spleen", "liver", "aorta"), ("liver", "aorta"), ())):
        subject = folder / f"s000{number}"
        write(subject / "ct.nii.gz", image(number))
        for name in masks:
            at = {"aorta": 1, "liver": 2, "spleen": 3}[name]
            mask = np.zeros(SHAPE, np.uint8)
            mask[at : at + 2, 1:4, 1:3] = 1
            write(subject / "segmentations" / f"{name}.nii.gz", mask)
    (folder / "s0000" / "segmentations" / "._liver.nii.gz").write_bytes(b"Mac OS X")
    (folder / "meta.csv").write_text("image_id;age;gender\ns0000;60;m\n")
    return folder
