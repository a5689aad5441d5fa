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
        unknown: labels, 1 to L, of whose place nothing is known: each shares alike with background what the other
            labels leave, so that its appearance decides.
    """

    def __init__(
        self, stack: SliceStack, maps: Sequence[tuple[Box, np.ndarray] | None], unknown: Sequence[int] = ()
    ) -> None:
        self._shape = (*stack.native, len(maps) + 1)
        self._maps = [None if of is None else stack.slices_of_box(*of) for of in maps]
        self._unknown = list(unknown)

    def of_slice(self, index: int) -> np.ndarray:
        """Probabilities of background and labels, float32 ``[rows, cols, L + 1]``, of one slice."""
        result = np.zeros(self._shape, np.float32)
        for label, of in enumerate(self._maps, start=1):
            if of is not None:
                (depth, rows, cols), values = of
                if depth.start <= index < depth.stop:
                    result[rows, cols, label] = values[index - depth.start]
        total = result.sum(-1)
        if (over := total > 1).any():  # templates and blurs differ from label to label
            result[over] /= total[over, None]
        result[..., 0] = (1 - total).clip(0)
        if self._unknown:
            share = result[..., 0] / (len(self._unknown) + 1)
            result[..., [0, *self._unknown]] = share[..., None]
        return result
