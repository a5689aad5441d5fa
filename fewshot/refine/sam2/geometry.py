"""From pixels of a native slice to those of the square image that a model sees, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fewshot.refine.sam.model import Frame

OUTSIDE = -10.0
"""Logit of a rough mask beyond the slice."""


def to_image(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Native positions (row, col) ``[N, 2]`` as (x, y) of the image; whole numbers are pixel centres in both."""
    scale = np.array(frame.content, np.float64) / np.array(frame.native, np.float64)
    moved = (np.asarray(points, np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
    return moved[:, ::-1].astype(np.float32)


def to_square(mask: np.ndarray, frame: Frame, size: int, *, outside: float) -> Tensor:
    """A native array ``[rows, cols]`` on the square image, float32 ``[1, 1, size, size]``."""
    found = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    if frame.content != frame.native:
        found = interpolate(found, size=frame.content, mode="bilinear", antialias=True)
    rows, cols = frame.content
    return pad(found, (0, size - cols, 0, size - rows), value=outside)


def to_native(logits: Tensor, frame: Frame, size: int) -> Tensor:
    """Logits ``[P, M, h, w]`` of the whole square image on the native slice ``[P, M, rows, cols]``, float32."""
    square = interpolate(logits.float(), size=(size, size), mode="bilinear", align_corners=False)
    rows, cols = frame.content
    inside = square[..., :rows, :cols]
    if frame.content == frame.native:
        return inside
    return interpolate(inside, size=frame.native, mode="bilinear", align_corners=False)
