"""Made-up cases with points: an ellipsoid with three bright or dark beads, somewhere in the image."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (28, 26, 40)
SPACING = (2.0, 2.0, 2.0)
BEADS = {"nose": (20, 13, 28, 260.0), "chin": (19, 13, 10, -150.0), "crown": (13, 13, 34, 320.0)}
"""Landmark -> voxel of the first case, and how much brighter it is than the head."""
NAMES = ("ann", "bob", "cid", "dan")
WITHOUT_CROWN = "dan"


def shift_of(seed: int) -> np.ndarray:
    """By how many voxels a case lies elsewhere."""
    return np.random.default_rng(seed).integers(-2, 3, 3) if seed else np.zeros(3, int)


def places(seed: int) -> dict[str, list[float]]:
    """The beads' centres, RAS mm."""
    return {
        name: ((np.array(of[:3]) + shift_of(seed)) * SPACING).astype(float).tolist()
        for name, of in BEADS.items()
    }


def write_case(folder: Path, name: str, seed: int, *, without: str = "") -> None:
    """Write an image and its points; a landmark that is absent is said to be."""
    rng = np.random.default_rng([7, seed])
    grid = np.indices(SHAPE) - shift_of(seed)[:, None, None, None]
    x, y, z = grid
    head = ((x - 13) / 10) ** 2 + ((y - 13) / 9) ** 2 + ((z - 20) / 17) ** 2 < 1
    image = 300.0 * head + rng.normal(0, 8, SHAPE)
    points: dict[str, list[float] | None] = dict(places(seed))
    for bead, (a, b, c, bright) in BEADS.items():
        if bead == without:
            points[bead] = None
            continue
        image[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < 7] += bright
    for part in ("images", "landmarks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(image.astype(np.float32), np.diag([*SPACING, 1.0])),
        folder / "images" / f"{name}.nii.gz",
    )
    (folder / "landmarks" / f"{name}.json").write_text(json.dumps(points))


def write_heads(folder: Path) -> Path:
    """Four cases, one of them without crown."""
    for seed, name in enumerate(NAMES):
        write_case(folder, name, seed, without="crown" if name == WITHOUT_CROWN else "")
    (folder / "dataset.json").write_text(
        json.dumps({"name": "heads", "landmarks": [*BEADS], "labels": {}, "modality": "MR"})
    )
    return folder
