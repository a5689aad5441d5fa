"""The classification adapter: a three-layer network on pixel features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewshot.adapters.base import Adapter, PixelNetwork
from fewshot.adapters.samples import Samples, balanced_indices
from fewshot.adapters.training import TrainingOptions, balanced_accuracy, train
from fewshot.progress import Progress, silent


class ClassificationAdapter(Adapter):
    """Three layers, softmax over labels + background, cross-entropy (paper, section 2, "Classification adapter").

    Where a template does not show all labels, a background pixel of it may be any of the missing ones; its loss is
    that of the classes it may have, taken together (a marginal loss; plain cross-entropy when all are shown).
    """

    name: ClassVar[str] = "classification"
    description: ClassVar[str] = "three-layer network on pixel features"
    trained: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options(TrainingOptions):
        """Settings.

        Attributes:
            hidden: widths of the two hidden layers.
            balanced: as many background pixels as label pixels (paper); otherwise as they occur in the slices.
        """

        hidden: tuple[int, int] = (64, 64)
        balanced: bool = True

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.network = PixelNetwork(dim, (*options.hidden, labels + 1))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        options: ClassificationAdapter.Options = self.options
        generator = torch.Generator().manual_seed(seed)
        reset_parameters(self, seed)
        fitted, held = samples.split(generator)
        held = held.certain()
        self.network.standardise(samples.features)
        if options.balanced:
            limit = 2 * max(1, len(fitted) // (self.labels + 1))
            fitted = fitted[balanced_indices(fitted.targets, generator, limit=limit)]

        def loss() -> Tensor:
            batch = fitted[torch.randint(len(fitted), (options.batch,), generator=generator)]
            return marginal_cross_entropy(self.network(batch.features), batch.possible)

        def accuracy() -> float:
            return balanced_accuracy(self.network(held.features).argmax(1), held.targets)

        return train(self, options=options, loss=loss, accuracy=accuracy, progress=progress)

    def on_patches(self, features: Tensor) -> Tensor:
        return self.network.narrow(features)

    def on_pixels(self, maps: Tensor) -> Tensor:
        return self.network.rest(maps).softmax(-1)


def marginal_cross_entropy(logits: Tensor, possible: Tensor) -> Tensor:
    """Minus the log of the probability of all possible classes together, averaged.

    Args:
        logits: ``[N, C]``.
        possible: bool ``[N, C]`` with at least one true class in each row.
    """
    allowed = logits.masked_fill(~possible, -torch.inf).logsumexp(1)
    return (logits.logsumexp(1) - allowed).mean()


def reset_parameters(module: torch.nn.Module, seed: int) -> None:
    """Draw the weights of all linear layers anew from a seed, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            if isinstance(part, torch.nn.Linear):
                part.reset_parameters()
