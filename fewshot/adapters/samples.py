"""Pixel features of the support set with what is known about each: what adapters are fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HOLDOUT_SHARE = 0.2
MIN_SLICES_FOR_SLICE_HOLDOUT = 10
"""With fewer labelled slices whole slices cannot be spared; single pixels are held out instead."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels of the labelled slices.

    Attributes:
        features: float32 ``[N, D]`` pixel features.
        targets: int64 ``[N]``; 0 is background, k the k-th label.
        slices: int64 ``[N]``; which labelled slice each pixel comes from.
        possible: bool ``[N, L + 1]``; classes that the pixel may have. A background pixel of a template on which
            label k was never drawn may belong to k.
        weights: float32 ``[N]``; how many pixels of the labelled slices each stands for, because large classes
            are drawn more sparsely than small ones.
    """

    features: Tensor
    targets: Tensor
    slices: Tensor
    possible: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> int:
        """Number of labels, background not counted."""
        return self.possible.shape[1] - 1

    def __getitem__(self, index: Tensor) -> Samples:
        return Samples(
            self.features[index],
            self.targets[index],
            self.slices[index],
            self.possible[index],
            self.weights[index],
        )

    def certain(self) -> Samples:
        """Those pixels of which the class is known without doubt: what accuracy can be measured on."""
        return self[torch.nonzero(self.possible.sum(1) == 1).flatten()]

    def certain_negatives(self, label: int) -> Tensor:
        """Indices of pixels that surely lie outside a label's RoI."""
        return torch.nonzero(~self.possible[:, label]).flatten()

    def split(self, generator: torch.Generator) -> tuple[Samples, Samples]:
        """A part to fit on and a held-out part: whole slices where there are enough, else single pixels.

        Every class that has at least two pixels keeps some in both parts.
        """
        slices = self.slices.unique()
        if len(slices) >= MIN_SLICES_FOR_SLICE_HOLDOUT:
            order = slices[torch.randperm(len(slices), generator=generator)]
            for first in range(len(order)):
                chosen = order.roll(-first)[: max(1, round(len(order) * HOLDOUT_SHARE))]
                held = torch.isin(self.slices, chosen)
                if self._covers(~held) and self._covers(held):
                    return self[torch.nonzero(~held).flatten()], self[torch.nonzero(held).flatten()]
        held = torch.zeros(len(self), dtype=torch.bool)
        for target in self.targets.unique():
            members = torch.nonzero(self.targets == target).flatten()
            shuffled = members[torch.randperm(len(members), generator=generator)]
            held[shuffled[: max(round(len(members) * HOLDOUT_SHARE), int(len(members) > 1))]] = True
        return self[torch.nonzero(~held).flatten()], self[torch.nonzero(held).flatten()]

    def _covers(self, mask: Tensor) -> bool:
        return len(self.targets[mask].unique()) == len(self.targets.unique())


def balanced_indices(targets: Tensor, generator: torch.Generator, *, limit: int) -> Tensor:
    """Indices with as many background pixels as label pixels, and the same number of every label.

    The paper draws background pixels "matching the number of pixels in foreground to maintain class balance".
    Labels with fewer pixels are repeated.

    Args:
        targets: ``[N]`` classes, 0 is background.
        limit: at most so many pixels of a label.
    """
    labels, counts = targets[targets > 0].unique(return_counts=True)
    wanted = int(min(limit, counts.max()))
    drawn = []
    for target, number in [(0, wanted * len(labels)), *((int(label), wanted) for label in labels)]:
        members = torch.nonzero(targets == target).flatten()
        if len(members) >= number:
            drawn.append(members[torch.randperm(len(members), generator=generator)[:number]])
        elif len(members):
            drawn.append(members[torch.randint(len(members), (number,), generator=generator)])
    return torch.cat(drawn)
