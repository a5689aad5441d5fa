"""The slices of many studies in one file, cut once by the code that inference uses, read by every process."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.errors import FewshotError
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, SliceStack, Volume

FORMAT = 1
LEVELS = 65_535
"""Grey values are kept as 16-bit integers: in the widest window a step is a thirtieth of a Hounsfield unit."""
ISOTROPIC = 1.5
"""Largest ratio of spacings at which all three planes of a volume are used."""
SHARE = 0.5
"""A group of n slices is drawn in proportion to n ** SHARE, so that a large one does not drown the others."""
LEAST_VISIBLE = 0.02
"""Slices in which less than this share of the pixels is brighter than air are left out."""
WIDE = "ct-wide"


@dataclass(frozen=True)
class SliceRecord:
    """One slice in the file.

    Attributes:
        offset: first pixel.
        rows, cols: shape.
        volume: index of its volume.
        stack: index of its volume and plane; neighbours in a stack are neighbours in the body.
        position: place along the plane's axis, millimetres.
        hounsfield: whether black to white is a CT window of ``WIDE``; else the volume's own percentiles.
    """

    offset: int
    rows: int
    cols: int
    volume: int
    stack: int
    position: float
    hounsfield: bool


class SliceStore:
    """Slices of all volumes, memory-mapped.

    Args:
        folder: holds ``slices.bin`` and ``slices.json``.
    """

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "slices.json").read_text())
        self.records = [SliceRecord(**record) for record in content["records"]]
        self.weights = np.array(content["weights"])
        self.names: list[str] = content["names"]
        self.failed: dict[str, str] = content["failed"]
        self.digest: str = content["digest"]
        self._pixels = np.memmap(folder / "slices.bin", np.uint16, "r")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def complete(self) -> bool:
        """Whether the file is as long as its index says."""
        last = self.records[-1]
        return len(self._pixels) == last.offset + last.rows * last.cols

    def image(self, index: int) -> np.ndarray:
        """One slice, float32 ``[rows, cols]`` in [0, 1]."""
        record = self.records[index]
        flat = self._pixels[record.offset : record.offset + record.rows * record.cols]
        return flat.reshape(record.rows, record.cols).astype(np.float32) / LEVELS

    def near(self, index: int, millimetres: float) -> np.ndarray:
        """Indices of the slices of the same stack that lie no farther away, itself included."""
        record = self.records[index]
        first = last = index
        while first > 0 and self._close(record, first - 1, millimetres):
            first -= 1
        while last + 1 < len(self.records) and self._close(record, last + 1, millimetres):
            last += 1
        return np.arange(first, last + 1)

    def _close(self, record: SliceRecord, index: int, millimetres: float) -> bool:
        other = self.records[index]
        return other.stack == record.stack and abs(other.position - record.position) <= millimetres


def prepare_slices(
    readers: Mapping[str, Callable[[], Volume]],
    folder: Path,
    *,
    size: int,
    per_volume: int,
    patch: int,
    progress: Progress = silent,
) -> SliceStore:
    """Cut every volume into slices, unless ``folder`` holds them already.

    A volume that cannot be read is left out and named in ``SliceStore.failed``. Isotropic volumes give slices of all
    three planes, others those in which they were acquired.

    Args:
        readers: name -> reads the volume. Names up to the last ``/`` are groups, see ``SHARE``.
        size: pixels of a slice's longer side.
        per_volume: at most so many slices of a volume, evenly spread.
        patch: of the backbone, pixels.

    Raises:
        FewshotError: if no volume can be read or the disk is full.
    """
    identity = json.dumps([FORMAT, sorted(readers), size, per_volume, patch])
    digest = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    store = _whole_store(folder)
    if store and store.digest == digest:
        return store
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "slices.json").unlink(missing_ok=True)  # it does not describe what is written now
        content = _write(readers, folder, size=size, per_volume=per_volume, patch=patch, progress=progress)
        text = json.dumps({**content, "digest": digest})
        # the index comes last and at once: whoever finds it finds all slices
        (folder / "slices.json.part").write_text(text)
        os.replace(folder / "slices.json.part", folder / "slices.json")
    except OSError as error:
        (folder / "slices.bin").unlink(missing_ok=True)
        raise FewshotError(
            f"The slices cannot be written to {folder} ({error.strerror or error}); free some space or choose "
            "another place with --out."
        ) from error
    return SliceStore(folder)


def _whole_store(folder: Path) -> SliceStore | None:
    """The slices of a folder, or None where an index or pixels are missing or damaged."""
    try:
        store = SliceStore(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return store if store.complete else None


def _write(
    readers: Mapping[str, Callable[[], Volume]],
    folder: Path,
    *,
    size: int,
    per_volume: int,
    patch: int,
    progress: Progress,
) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    names: list[str] = []
    failed: dict[str, str] = {}
    offset = stacks = 0
    with (folder / "slices.bin").open("wb") as file:
        for done, (name, read) in enumerate(readers.items()):
            progress("slices", done, len(readers))
            try:
                cut = _cut(read(), size=size, per_volume=per_volume, patch=patch)
            except (FewshotError, OSError, MemoryError) as error:
                failed[name] = str(error) or type(error).__name__
                continue
            for plane in cut:
                for position, image in zip(plane.positions, plane.images, strict=True):
                    records.append(
                        {
                            "offset": offset,
                            "rows": image.shape[0],
                            "cols": image.shape[1],
                            "volume": len(names),
                            "stack": stacks,
                            "position": position,
                            "hounsfield": plane.hounsfield,
                        }
                    )
                    file.write(np.round(image * LEVELS).astype(np.uint16).tobytes())
                    offset += image.size
                stacks += 1
            if cut:
                names.append(name)
            else:
                failed[name] = "it shows nothing but air"
        progress("slices", len(readers), len(readers))
        file.flush()
        os.fsync(file.fileno())
    if not records:
        reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in list(failed.items())[:3])
        raise FewshotError(f"None of the {len(readers)} studies can be used for pretraining ({reasons}).")
    return {"records": records, "weights": _weights(records, names), "names": names, "failed": failed}


@dataclass(frozen=True)
class _Plane:
    positions: list[float]
    images: list[np.ndarray]
    hounsfield: bool


def _cut(volume: Volume, *, size: int, per_volume: int, patch: int) -> list[_Plane]:
    planes = ["auto"]
    if volume.calibrated and min(volume.shape) > 1 and max(volume.spacing) <= ISOTROPIC * min(volume.spacing):
        planes = ["axial", "coronal", "sagittal"]
    cut = []
    for plane in planes:
        stack = SliceStack(volume, SliceSpec(plane=plane, size=size), patch=patch)
        hounsfield = stack.spec.window.startswith("ct-")
        if hounsfield:
            stack = SliceStack(volume, SliceSpec(plane=plane, size=size, window=WIDE), patch=patch)
        seen = np.flatnonzero(~stack.air)
        chosen = seen[_spread(len(seen), max(1, per_volume // len(planes)))]
        spacing = float(np.linalg.norm(stack.affine[:3, 0]))
        positions, images = [], []
        for index in chosen.tolist():
            image = stack.render([index])[0, : stack.content[0], : stack.content[1]]
            if (image > LEAST_VISIBLE).mean() >= LEAST_VISIBLE:
                positions.append(index * spacing)
                images.append(image)
        if images:
            cut.append(_Plane(positions, images, hounsfield))
    return cut


def _spread(count: int, most: int) -> np.ndarray:
    """Indices of at most so many of ``count`` slices, evenly spread."""
    wanted = min(count, most)
    return ((np.arange(wanted) + 0.5) * count / max(1, wanted)).astype(int)


def _weights(records: list[dict[str, Any]], names: list[str]) -> list[float]:
    """Chance of every slice: groups by ``SHARE``, volumes of a group alike, slices of a volume alike."""
    volume = np.array([record["volume"] for record in records])
    _, group = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    in_volume = np.bincount(volume, minlength=len(names))
    in_group, volumes = np.bincount(group[volume]), np.bincount(group)
    weights = (in_group**SHARE / volumes)[group[volume]] / in_volume[volume]
    return (weights / weights.sum()).tolist()
