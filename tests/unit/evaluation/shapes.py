"""Made-up cases: a disc and a bar on noise."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

LABELS = {"disc": 1, "bar": 4}
NAMES = ("ann", "bob", "cid", "dan", "eve")
WITHOUT_BAR = "eve"


def write_case(folder: Path, name: str, seed: int, *, disc: bool = True, bar: bool = True) -> None:
    """Write an image and a label map in slices of 4 mm; the two outer slices are empty."""
    rng = np.random.default_rng(seed)
    shape = (26, 22, 6)
    x, y, _ = np.indices(shape)
    dx, dy = rng.integers(-2, 3, 2)
    labels = np.zeros(shape, np.uint8)
    if disc:
        labels[(x - 8 - dx) ** 2 + (y - 8 - dy) ** 2 < 20] = LABELS["disc"]
    if bar:
        labels[18 + dx : 22 + dx, 8:18] = LABELS["bar"]
    labels[:, :, [0, -1]] = 0
    image = rng.normal(100, 10, shape) + 120 * (labels == LABELS["disc"]) + 60 * (labels == LABELS["bar"])
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    for part, array in (("images", image.astype(np.float32)), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), folder / part / f"{name}.nii.gz")
