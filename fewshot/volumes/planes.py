"""The three planes: which way a slice is shown, and which one a volume was acquired in."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform

from fewshot.volumes.volume import Volume

DIRECTIONS = {
    "axial": ("S", "P", "L"),
    "coronal": ("A", "I", "L"),
    "sagittal": ("R", "I", "P"),
}
"""Where slices, rows and columns run to, as radiologists look at them: the patient's right at the left of
axial and coronal slices, the face at the left of sagittal ones. Axial slices are ordered from inferior to
superior, coronal from posterior to anterior, sagittal from left to right."""

PLANES = ("auto", *DIRECTIONS)
ACROSS = ("sagittal", "coronal", "axial")
"""The plane that lies across each RAS axis."""
CLEARLY_LARGER = 1.3
"""Ratio of slice distance to in-plane spacing from which a volume counts as acquired in slices."""


def orientation(affine: np.ndarray, plane: str) -> np.ndarray:
    """Flips and transposes that bring a volume's axes to [slices, rows, cols], as nibabel's [3, 2] array."""
    return ornt_transform(nib.io_orientation(affine), axcodes2ornt(DIRECTIONS[plane]))


def in_plane(affine: np.ndarray, plane: str) -> tuple[int, int]:
    """The array axes along which the rows and the columns of a slice run."""
    targets = orientation(affine, plane)[:, 0].tolist()
    return targets.index(1), targets.index(2)


def acquisition_plane(volume: Volume) -> str:
    """The plane across the axis with one voxel or with clearly the largest spacing; else axial."""
    ras_axes = nib.io_orientation(volume.affine)[:, 0].astype(int)
    planes = [ACROSS[axis] for axis in ras_axes]
    flat = [plane for plane, side in zip(planes, volume.shape, strict=True) if side == 1]
    if flat:
        # a single row or column of voxels has two such axes
        return max(flat, key=ACROSS.index)
    spacing = np.asarray(volume.spacing)
    thickest = int(np.argmax(spacing))
    others = np.delete(spacing, thickest)
    return planes[thickest] if spacing[thickest] > CLEARLY_LARGER * others.max() else "axial"
