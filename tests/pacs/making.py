"""Images and segmentations as a PACS has them, small and made up."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom

from fewshot.volumes import Volume, read_volume
from fewshot.volumes.dicom_writing import new_uid, write_dicom
from lib.pacs.seg_writing import write_seg

SHAPE = (32, 32, 8)


def make_volume(seed: int = 0, *, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """A CT with a bright block in it, turned a little about the x axis, with noise of its own."""
    turn = np.deg2rad(10)
    cos, sin = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, -cos, -sin], [0, -sin, cos]]) * (3.0, 3.2, 5.0)
    affine[:3, 3] = (40, 50, -20 + seed)
    array = np.random.default_rng(seed).normal(-800, 20, shape).astype(np.float32)
    array[8:20, 8:20] += 850
    return Volume(np.rint(array), affine, modality="CT", name=f"made-{seed}")


def write_image(folder: Path, seed: int = 0, **how: object) -> str:
    """One file per slice; returns the series' UID."""
    volume = make_volume(seed, shape=(64, 64, 8) if how.get("compress") else SHAPE)
    told = {"patient": f"P{seed}", "description": "made up", **how}
    return write_dicom(volume, folder, **told)  # type: ignore[arg-type]


def block(*values: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A label map with a block of its own for every value."""
    labels = np.zeros(shape, np.uint8)
    for place, value in enumerate(values):
        labels[4 + 8 * place : 10 + 8 * place, 6:14, 2:6] = value
    return labels


def make_seg(
    image: Path,
    out: Path,
    names: dict[int, str],
    *,
    labels: np.ndarray | None = None,
    created: str = "20260101120000.000000",
    model: str = "",
) -> pydicom.Dataset:
    """A SEG of the image in a folder, by a person or a model, made at a time."""
    volume = read_volume(image)
    write_seg(
        block(*names, shape=volume.shape) if labels is None else labels,
        names,
        image,
        volume,
        out,
        description=model or "drawn",
        algorithm="AUTOMATIC" if model else "MANUAL",
        algorithm_name=model,
        creator="somebody",
    )
    seg = pydicom.dcmread(out)
    seg.ContentDate, seg.ContentTime = created[:8], created[8:]
    seg.TimezoneOffsetFromUTC = "+0000"
    seg.save_as(out)
    return seg


def another(seg: pydicom.Dataset, **changes: object) -> pydicom.Dataset:
    """A SEG like this one in a series of its own."""
    copy = deepcopy(seg)
    copy.SeriesInstanceUID, copy.SOPInstanceUID = new_uid(), new_uid()
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    for keyword, value in changes.items():
        setattr(copy, keyword, value)
    return copy
