"""What is said to a promptable model about one object in one slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOREGROUND, BACKGROUND = 1, 0


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box and a rough mask of one object, each optional, in pixels of the native slice.

    Positions follow pixel centres, as in `SliceStack`: pixel (0, 0) has its centre at (0, 0).

    Attributes:
        points: float ``[N, 2]``, (row, col).
        labels: int ``[N]``, ``FOREGROUND`` or ``BACKGROUND``.
        box: first and last row and column that the object covers, (row, col, row, col).
        mask: float32 ``[rows, cols]``, logits (above 0 inside) of a rough mask.
    """

    points: np.ndarray
    labels: np.ndarray
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None
