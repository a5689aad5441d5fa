"""Parts of the report's pictures: the crop around a structure, its outline, the image as a data URI."""

from __future__ import annotations

import base64
import io
import math

import numpy as np

PICTURE_PX = 360
"""Longer side of a picture: sharp at the size that a phone shows it."""
WEBP_QUALITY = 78
"""A tenth of the size of a PNG; the contours are not part of it."""
CONTEXT, SMALLEST = 2.2, 0.3
"""A picture is so many times as wide as its structure, and at least this share of the slice."""
STRIDE = 3
"""Units of the path coordinates per pixel of the picture: integers are short and fine enough."""


def surroundings(mask: np.ndarray, mm: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of a square (in millimetres) around a structure, inside the slice.

    Args:
        mask: where the structure is, bool [rows, cols].
        mm: millimetres from row to row and from column to column.
    """
    sides = [count * step for count, step in zip(mask.shape, mm, strict=True)]
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    held = [np.flatnonzero(mask.any(axis=other)) for other in (1, 0)]
    extent = max((of[-1] - of[0] + 1) * step for of, step in zip(held, mm, strict=True))
    wanted = max(CONTEXT * extent, SMALLEST * max(sides))
    cut = []
    for of, step, count in zip(held, mm, mask.shape, strict=True):
        long = min(count, max(1, round(wanted / step)))
        start = min(max(0, round((of[0] + of[-1] + 1 - long) / 2)), count - long)
        cut.append(slice(start, start + long))
    return cut[0], cut[1]


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """The edge of a mask as SVG path data, along the voxels.

    Args:
        mask: bool [rows, cols] that fill the picture.
        size: width and height of the picture in pixels; the path has `STRIDE` units per pixel.
    """
    from skimage.measure import approximate_polygon, find_contours

    rows, cols = mask.shape
    shrink = max(1, -(-max(rows, cols) // PICTURE_PX))
    mask = mask[::shrink, ::shrink]
    # the border of zeros closes contours at the picture's edge
    contours = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    scale = np.array([STRIDE * size[1] / rows, STRIDE * size[0] / cols]) * shrink
    parts = []
    for contour in contours:
        points = approximate_polygon((contour - 0.5) * scale, 0.4 * STRIDE)
        if len(points) < 4:  # a closed triangle has four
            continue
        y, x = np.rint(points[:-1]).astype(int).T
        steps = np.diff(np.stack([x, y], axis=1), axis=0)
        parts.append(f"M{x[0]} {y[0]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps) + "z")
    return "".join(parts)


def packed(image: np.ndarray, size: tuple[int, int]) -> str:
    """A slice [rows, cols] in [0, 1] as a data URI."""
    from PIL import Image

    grey = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    packed = io.BytesIO()
    grey.resize(size, Image.Resampling.BICUBIC).save(packed, "WEBP", quality=WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def scale_bar(width: int, per_mm: float) -> tuple[int, str]:
    """Percent of the picture's width, and the round length that it stands for, about a quarter."""
    wanted = width / per_mm / 4
    decade = 10.0 ** math.floor(math.log10(wanted))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= wanted)
    return round(100 * length * per_mm / width), f"{length:g} mm"
