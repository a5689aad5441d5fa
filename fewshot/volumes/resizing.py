"""Resize many slices at once."""

from __future__ import annotations

import numpy as np

CHUNK = 64
"""Slices resized at once, to bound the memory of the intermediate."""


def nearest(slices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Slices [S, h, w] at another size [S, *size], each pixel with the value of the nearest one."""
    rows, cols = (
        ((np.arange(target) + 0.5) * source / target).astype(np.intp)
        for source, target in zip(slices.shape[1:], size, strict=True)
    )
    return slices[:, rows[:, np.newaxis], cols[np.newaxis, :]]


def resize(slices: np.ndarray, size: tuple[int, int], *, out: np.ndarray | None = None) -> np.ndarray:
    """Slices [S, h, w] at another size: linear when enlarged, averaged over the pixels when shrunk.

    Args:
        slices: Numbers of any type.
        size: Rows and columns wanted.
        out: Where to put the result, float32 [S, *size]; a new array by default.
    """
    import torch  # heavy: an idle server imports this module without using it
    from torch.nn.functional import interpolate

    if out is None:
        out = np.empty((len(slices), *size), dtype=np.float32)
    for start in range(0, len(slices), CHUNK):
        part = np.ascontiguousarray(slices[start : start + CHUNK], dtype=np.float32)
        if part.shape[1:] != size:
            batch = torch.from_numpy(part)[:, None]
            part = interpolate(batch, size=size, mode="bilinear", antialias=True)[:, 0].numpy()
        out[start : start + CHUNK] = part
    return out
