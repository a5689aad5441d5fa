"""Features made by hand, in the place of a backbone: what a learned one has to beat."""

from __future__ import annotations

import numpy as np
import torch
from skimage.feature import multiscale_basic_features
from torch import Tensor, nn

FINEST, COARSEST = 1.0, 16.0
"""Gaussian scales in pixels, in steps of two."""


class MultiscaleDerivatives(nn.Module):
    """Grey value, gradient and both eigenvalues of the Hessian at five Gaussian scales (scikit-image)."""

    stride = 2
    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.width = int(self.maps(torch.zeros(1, 1, 32, 32)).shape[-1])

    def maps(self, images: Tensor) -> Tensor:
        """``[B, 1, H, W]`` -> ``[B, H/2, W/2, 20]``."""
        each = [
            multiscale_basic_features(image, sigma_min=FINEST, sigma_max=COARSEST)
            for image in images[:, 0].float().cpu().numpy()
        ]
        maps = torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2)
        return nn.functional.avg_pool2d(maps, self.stride).permute(0, 2, 3, 1)
