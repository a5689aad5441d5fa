"""Distances between the surfaces of two masks, in millimetres."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing: Sequence[float], *, flat: Sequence[int] = ()
) -> tuple[float, float]:
    """95th percentile Hausdorff distance and average symmetric surface distance, as MONAI computes them.

    A mask's surface is its voxels that have a neighbour (by a face) outside the mask or the array. HD95 is the
    larger of the two directions' 95th percentiles; the average is over both surfaces' voxels together.

    Args:
        truth: bool [X, Y, Z], not empty.
        predicted: bool [X, Y, Z], not empty; a crop around both masks gives the same as the whole volume.
        spacing: millimetres from voxel to voxel along the three axes.
        flat: an axis along which the image has one voxel: surfaces are then outlines in its plane, for in a
            volume of one slice every voxel would be surface.

    Returns:
        HD95 and average symmetric surface distance.
    """
    # importing MONAI takes seconds, which the command line need not spend on `--help`
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    drop = tuple(flat)[:1]
    step = [float(length) for axis, length in enumerate(spacing) if axis not in drop]
    there, found = (
        # an empty border: the edge of a crop is then no different from the edge of the volume
        torch.from_numpy(np.pad(mask.squeeze(drop), 1).astype(np.float32))[None, None]
        for mask in (truth, predicted)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that MONAI gives to itself
        farthest = compute_hausdorff_distance(
            found, there, include_background=True, percentile=95, spacing=step
        )
        average = compute_average_surface_distance(
            found, there, include_background=True, symmetric=True, spacing=step
        )
    return float(farthest), float(average)
