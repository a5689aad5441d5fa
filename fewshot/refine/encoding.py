"""Slices as a Segment Anything model sees them: encoded once, kept in the feature bank, prompted many times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fewshot.features import FeatureBank
from fewshot.progress import Progress, silent
from fewshot.refine.memory import Batches
from fewshot.refine.sam.model import Embedding, Frame, SamModel
from fewshot.volumes import SliceStack

EMBEDDINGS_VERSION = 1
"""Raise when the same slice and weights would give another embedding than before."""

BATCH_PIXELS = 4 * 1024**2
"""Pixels that go through an encoder at once on a GPU: four images of the official models' size."""


def sam_stack(stack: SliceStack, sam: SamModel) -> SliceStack:
    """The same slices as a model wants them: the longer side ``sam.size`` pixels, whatever the pixel size in mm."""
    return SliceStack(stack.volume, replace(stack.spec, size=sam.size, pixel_mm=None), patch=sam.patch)


class Embeddings:
    """Embeddings of the slices of one volume, from the bank where they are, else computed and stored.

    Args:
        stack: the volume's slices, of any size; plane and window are taken from it.
        sam: the model that encodes them.
        bank: keeps one entry per slice.

    Attributes:
        stack: the slices as the model sees them.
        frame: how a slice lies in the model's image.
        encoded: slices encoded so far; the others came from the bank.
        notes: what the reader of a result must know: less memory than needed.
    """

    def __init__(self, stack: SliceStack, sam: SamModel, bank: FeatureBank) -> None:
        self.sam, self.bank = sam, bank
        self.stack = sam_stack(stack, sam)
        self.frame = Frame(self.stack.native, self.stack.content)
        self.encoded = 0
        self.notes: list[str] = []
        at_once = 1 if sam.device.type == "cpu" else BATCH_PIXELS // sam.size**2
        self._batches = Batches(sam, at_once, self.notes)
        self._unstored: dict[int, Embedding] = {}

    def prepare(self, indices: Iterable[int], progress: Progress = silent) -> int:
        """Encode those slices that the bank lacks.

        Args:
            indices: of slices.
            progress: told the stage ``encode`` over them.

        Returns:
            How many were encoded for this call.
        """
        wanted = sorted({int(index) for index in indices})
        missing = [index for index in wanted if not self._at_hand(index)]
        before, there = self.encoded, len(wanted) - len(missing)
        progress("encode", there, len(wanted))
        for batch, _ in self._batches.run(missing, self._encode):
            there += len(batch)
            progress("encode", there, len(wanted))
        return self.encoded - before

    def of_slice(self, index: int) -> Embedding:
        """The embedding of one slice; encoded now if nobody did before."""
        index = int(index)
        if index in self._unstored:
            return self._unstored[index]
        return next(found[0] for _, found in self._batches.run([index], self._encode))

    def _encode(self, indices: Sequence[int]) -> list[Embedding]:
        if len(indices) == 1:  # another process that wants the same slice waits
            return [self._keep(indices[0])]
        made = self.sam.encode(self._images(indices))
        return [self._keep(index, one) for index, one in zip(indices, made, strict=True)]

    def _keep(self, index: int, made: Embedding | None = None) -> Embedding:
        signature = self._signature(index)
        embedding, fresh = self.bank.arrays(
            signature,
            lambda: self.sam.encode(self._images([index]))[0] if made is None else made,
            name=self.stack.volume.name,
        )
        if fresh:
            self.encoded += 1
            if not self.bank.has(signature):  # a full or read-only disk must not double the work
                self._unstored[index] = embedding
        return embedding

    def _images(self, indices: Sequence[int]) -> np.ndarray:
        """Slices as images without the stack's padding: each model pads in its own way."""
        rows, cols = self.stack.content
        return self.stack.render(indices)[:, :rows, :cols]

    def _at_hand(self, index: int) -> bool:
        return index in self._unstored or self.bank.has(self._signature(index))

    def _signature(self, index: int) -> dict[str, Any]:
        """Everything that an embedding depends on; the precision may change with the device."""
        return {
            "sam": self.sam.digest,
            "kind": self.sam.kind,
            "stack": self.stack.digest,
            "slice": index,
            "dtype": str(self.sam.dtype),
            "version": EMBEDDINGS_VERSION,
        }
