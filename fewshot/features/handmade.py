"""Features made by hand: what a learned backbone has to beat, and what it takes along."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Deviations of the Gaussians, pixels."""
PER_SCALE = 4
REACH = 3.0
"""Kernels end after so many deviations."""


def derivatives(images: Tensor, stride: int) -> Tensor:
    """Grey value, gradient and both eigenvalues of the Hessian at several Gaussian scales, as in scikit-image's
    ``multiscale_basic_features``, times the scale's power that makes them comparable (Lindeberg 1998).

    Args:
        images: float32 ``[B, 1, H, W]``, sides multiples of ``stride``.
        stride: pixels averaged into one feature vector.

    Returns:
        ``[B, H / stride, W / stride, 20]``.
    """
    found = []
    for scale in SCALES:
        smooth = _gaussian(images, scale)
        down, right = torch.gradient(smooth, dim=(-2, -1))
        down_down, down_right = torch.gradient(down, dim=(-2, -1))
        right_right = torch.gradient(right, dim=-1)[0]
        middle = (down_down + right_right) / 2
        spread = (((down_down - right_right) / 2) ** 2 + down_right**2).sqrt()
        edge = (down**2 + right**2).sqrt() * scale
        found += [smooth, edge, (middle + spread) * scale**2, (middle - spread) * scale**2]
    return functional.avg_pool2d(torch.cat(found, 1), stride).permute(0, 2, 3, 1)


class MultiscaleDerivatives(nn.Module):
    """``derivatives`` alone, in the place of a backbone's network."""

    stride = 2
    channels = 1
    width = len(SCALES) * PER_SCALE

    def maps(self, images: Tensor) -> Tensor:
        """``[B, 1, H, W]`` -> ``[B, H / 2, W / 2, 20]``."""
        return derivatives(images.float(), self.stride)


def _gaussian(images: Tensor, scale: float) -> Tensor:
    """Images smoothed along both axes; beyond the border the border goes on."""
    reach = int(REACH * scale)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (places / scale) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel), kernel.transpose(2, 3))
