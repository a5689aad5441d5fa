"""Where a query volume should show each label, before its own appearance is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot.volumes import SliceStack

Box = tuple[slice, slice, slice]


class Prior:
    """Probabilities of labels on a volume's own grid, kept only where they are not zero.

    Args:
        stack: the volume's slices.
        maps: for each label the box ``[X, Y, Z]`` outside which it cannot lie, and float16 probabilities inside;
            None where it lies nowhere.
    """

    def __init__(self, stack: SliceStack, maps: Sequence[tuple[Box, np.ndarray] | None]) -> None:
        self._shape = (*stack.native, len(maps) + 1)
        self._maps = [None if of is None else stack.slices_of_box(*of) for of in maps]

    def of_slice(self, index: int) -> np.ndarray:
        """Probabilities of background and labels, float32 ``[rows, cols, L + 1]``, of one slice."""
        result = np.zeros(self._shape, np.float32)
        for label, of in enumerate(self._maps, start=1):
            if of is not None:
                (depth, rows, cols), values = of
                if depth.start <= index < depth.stop:
                    result[rows, cols, label] = values[index - depth.start]
        result[..., 0] = (1 - result.sum(-1)).clip(0)
        return result
