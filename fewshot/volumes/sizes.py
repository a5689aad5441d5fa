"""How large a structure is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def label_radii(counts: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Radius of a ball as large as each label, of a disc in a picture.

    Args:
        counts: ``[L]`` voxels of each label.
        spacing: mm from voxel to voxel along the axes; of a picture along its two sides.

    Returns:
        float64 ``[L]`` mm; NaN for a label without voxels.
    """
    voxels = np.where(counts > 0, counts, np.nan).astype(float)
    if len(spacing) == 2:
        return np.sqrt(voxels * np.prod(spacing) / np.pi)
    return np.cbrt(voxels * np.prod(spacing) * 3 / 4 / np.pi)
