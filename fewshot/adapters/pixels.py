"""Pixel features are bilinearly interpolated patch features (paper, section 2); how to have them cheaply.

Interpolation and a linear layer commute: ``W (sum_i w_i f_i) + b = sum_i w_i (W f_i + b)`` because the weights of
an interpolation sum to one. So the first layer of an adapter runs on patches and only its narrow output is
interpolated; training reads the few pixels that it needs and never enlarges a slice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def interpolation_matrix(coordinates: Tensor, patches: int) -> Tensor:
    """Bilinear weights along one axis, border patches repeated outside.

    Args:
        coordinates: ``[P]`` in units of patch indices (patch i's centre is at i).
        patches: number of patches along the axis.

    Returns:
        ``[P, patches]``; each row holds at most two weights and sums to one.
    """
    clamped = coordinates.clamp(0, patches - 1)
    lower = clamped.floor().long().clamp(max=max(patches - 2, 0))
    fraction = clamped - lower
    matrix = torch.zeros(len(coordinates), patches, dtype=coordinates.dtype, device=coordinates.device)
    matrix.scatter_(1, lower[:, None], (1 - fraction)[:, None])
    if patches > 1:
        matrix.scatter_(1, lower[:, None] + 1, fraction[:, None])
    return matrix


def to_pixels(maps: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Interpolate patch maps onto a grid of pixels.

    Args:
        maps: ``[B, h, w, K]`` patch maps.
        ys: ``[H]`` pixel rows in units of patch indices.
        xs: ``[W]`` pixel columns in units of patch indices.

    Returns:
        ``[B, H, W, K]``.
    """
    # Two small matrix products: faster on a CPU than gathering the four corners of every pixel.
    rows = torch.einsum("yi,bijk->byjk", interpolation_matrix(ys.to(maps), maps.shape[1]), maps)
    return torch.matmul(interpolation_matrix(xs.to(maps), maps.shape[2]), rows)


def at_points(maps: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Interpolate the patch map of one slice at single pixels.

    Args:
        maps: ``[h, w, K]``.
        ys: ``[N]`` rows in units of patch indices.
        xs: ``[N]`` columns in units of patch indices.

    Returns:
        ``[N, K]``.
    """
    height, width, _ = maps.shape
    ys, xs = ys.clamp(0, height - 1), xs.clamp(0, width - 1)
    top = ys.floor().long().clamp(max=max(height - 2, 0))
    left = xs.floor().long().clamp(max=max(width - 2, 0))
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    dy, dx = (ys - top)[:, None], (xs - left)[:, None]
    upper = maps[top, left] * (1 - dx) + maps[top, right] * dx
    lower = maps[bottom, left] * (1 - dx) + maps[bottom, right] * dx
    return upper * (1 - dy) + lower * dy
