"""One image as the engine sees it: voxels, where they lie in the patient, and how it was read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewshot.errors import FewshotError

MODALITIES = {
    "CT": "CT",
    "CBCT": "CT",
    "MR": "MR",
    "MRI": "MR",
    "XR": "XR",
    "CR": "XR",
    "DX": "XR",
    "RG": "XR",
    "RF": "XR",
    "XA": "XR",
    "MG": "XR",
    "IO": "XR",
    "PX": "XR",
    "XRAY": "XR",
}
"""What files and data sets call a modality (DICOM codes included) and the name it has here."""


PERCENTILES = (0.5, 99.5)
"""Between these most of what an image shows lies, whatever its grey values mean."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An image volume in its file's own voxel order, with its geometry.

    Args:
        array: float32 [X, Y, Z], finite. A 2D picture is [X, Y, 1] with X the column and Y the row.
        affine: float64 [4, 4], voxel index -> RAS+ millimetres.
        modality: "CT", "MR", "XR" or "" where it is not known.
        name: name of the case: the file's name without its extension(s).
        path: file or DICOM folder, None for a volume made in memory.
        calibrated: False where the spacing is not known in millimetres (PNG, JPG).
        notes: what reading had to decide or mend, one sentence each.

    Raises:
        FewshotError: The array has not three axes of at least one voxel, or the affine is singular.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str = ""
    name: str = ""
    path: Path | None = None
    calibrated: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or 0 in self.array.shape:
            raise FewshotError(
                f"{self.name or 'A volume'} has shape {self.array.shape}; give three axes, none empty."
            )
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not is_regular(affine):
            raise FewshotError(
                f"{self.name or 'A volume'} has an affine that places no voxels in space; "
                "give a 4 x 4 matrix from voxel index to RAS millimetres."
            )
        object.__setattr__(self, "array", np.asarray(self.array, dtype=np.float32))
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the array's three axes."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along the array's three axes."""
        return spacing_of(self.affine)

    @cached_property
    def lowest(self) -> float:
        """The smallest voxel."""
        return float(self.array.min())

    @cached_property
    def grey_range(self) -> tuple[float, float]:
        """The ``PERCENTILES`` of the voxels; the extremes where these are equal."""
        lower, upper = (float(value) for value in np.percentile(self.array, PERCENTILES))
        if lower == upper:  # a small bright object in a large empty volume lies beyond the percentiles
            lower, upper = self.lowest, float(self.array.max())
        return lower, upper

    @cached_property
    def digest(self) -> str:
        """Name of these voxels in this place; the same for every file that holds them."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr(self.shape).encode())
        # + 0.0 turns -0.0 into 0.0: both place the voxels alike
        digest.update((np.round(self.affine, 6) + 0.0).tobytes())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Lengths of the three voxel steps of an affine, in millimetres."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def is_regular(affine: np.ndarray) -> bool:
    """Whether an affine [4, 4] gives every voxel its own place."""
    if not np.isfinite(affine).all():
        return False
    steps = affine[:3, :3]
    lengths = np.sqrt((steps**2).sum(axis=0))
    return bool((lengths > 0).all() and abs(np.linalg.det(steps / lengths)) > 1e-4)


def modality_of(text: str) -> str:
    """The modality ("CT", "MR", "XR" or "") that a tag or a description such as "MR T1w" names first."""
    words = re.findall(r"[A-Z]+", text.upper().replace("X-RAY", "XRAY"))
    return next((MODALITIES[word] for word in words if word in MODALITIES), "")
