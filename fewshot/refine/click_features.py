"""Patch features of single slices, so that a first click does not wait for a whole volume."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.features import Backbone, FeatureBank
from fewshot.features.bank import BankEntry, entry_signature
from fewshot.features.extraction import BLACK_PATCHES, occupied_patches
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceStack


class SliceFeatures:
    """Features of a volume's slices: from its entry in the bank, else slice by slice.

    Args:
        stack: the volume's slices.
        backbone: what the features are of.
        bank: keeps them.
    """

    def __init__(self, stack: SliceStack, backbone: Backbone, bank: FeatureBank) -> None:
        self.stack, self._backbone, self._bank = stack, backbone, bank
        self._signature = entry_signature(stack, backbone)
        self._whole: BankEntry | None = None
        self._single: dict[int, Tensor] = {}
        self.computed = 0

    def of_slice(self, index: int) -> Tensor:
        """Float32 ``[h, w, dim]`` of a slice that is not air; computed now if nobody did before."""
        if self._whole is None and self._bank.has(self._signature):
            self._whole = self._bank.features(self.stack, self._backbone)
        if self._whole is not None:
            return self._whole.of_slice(index)
        if index not in self._single:
            found, fresh = self._bank.arrays(
                {**self._signature, "slice": index},
                lambda: {"features": self._compute(index)},
                name=self.stack.volume.name,
            )
            self.computed += fresh
            self._single[index] = torch.from_numpy(np.array(found["features"])).float()
        return self._single[index]

    def prepare_all(self, progress: Progress = silent) -> int:
        """Compute the features of all slices, as a prediction does; returns how many slices were computed."""
        entry = self._bank.features(self.stack, self._backbone, progress=progress)
        return len(entry.features) if entry.fresh else 0

    def _compute(self, index: int) -> np.ndarray:
        """As `compute_features` does, so that an answer does not change when the volume has its features."""
        stack, backbone = self.stack, self._backbone
        ys, xs = occupied_patches(stack)
        black = torch.zeros(1, BLACK_PATCHES * stack.patch, BLACK_PATCHES * stack.patch)
        features: np.ndarray[Any, Any] = np.empty((*stack.grid, backbone.dim), np.float16)
        features[:] = backbone.features(black).mean((0, 1, 2)).cpu().numpy()
        pixels = (slice(axis.start * stack.patch, axis.stop * stack.patch) for axis in (ys, xs))
        image = torch.from_numpy(stack.render([index])[:, *pixels])
        features[ys, xs] = backbone.features(image)[0].cpu().numpy()
        return features
