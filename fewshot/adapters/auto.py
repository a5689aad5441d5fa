"""The default adapter: what a pixel looks like, joined with where the registered templates say that labels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fewshot.adapters.base import Adapter, PixelNetwork
from fewshot.adapters.classification import marginal_cross_entropy, reset_parameters
from fewshot.adapters.samples import Samples, balanced_indices
from fewshot.adapters.training import TrainingOptions, balanced_accuracy, train
from fewshot.progress import Progress, silent
from fewshot.settings import number

FLOOR = 1e-2
"""Least prior probability of every class: a registration that is wrong cannot forbid what is plain to see."""

ROWS = 4096
"""Disturbances are drawn once and picked from: drawing them anew took longer than the network itself."""

LEAST_APPEARANCE = 1e-4
"""Likewise the least probability that the network gives."""


class AutoAdapter(Adapter):
    """A robust pixel classifier whose probabilities are multiplied with a spatial prior.

    The classifier is trained with equally many pixels of every label (and as many of the background as of all labels
    together, which leans towards it), so that its output is proportional to p(features | class); with the prior
    p(class | place) of the registered templates, Bayes' rule gives the class:
    p(class) ~ appearance^weight * (prior + floor). A weight below 1 says that the errors of neighbouring pixels
    are not independent. Weight and blur are chosen by cross-validation where there is more than one template.

    Templates show one patient each, so features are disturbed in training, every batch by a common shift as
    between patients and every pixel by its own, and hidden units are left out.
    """

    name: ClassVar[str] = "auto"
    description: ClassVar[str] = (
        "appearance and place: a pixel network joined with the registered templates (default)"
    )
    trained: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options(TrainingOptions):
        """Settings.

        Attributes:
            hidden: widths of the two hidden layers.
            noise: disturbance of the features in training, in standard deviations.
            dropout: share of hidden units left out in training.
            weight: exponent of the appearance.
            blur: deviation of the prior's blur, in radii of the label.
            choose: choose weight and blur by cross-validation where templates allow it.
        """

        epochs: int = 20
        hidden: tuple[int, int] = (64, 64)
        noise: float = number(0.5, above=-1e-9, below=10)
        dropout: float = number(0.3, above=-1e-9, below=1)
        weight: float = number(0.75, above=-1e-9, below=10)
        blur: float = number(0.15, above=-1e-9, below=10)
        choose: bool = True

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.network = PixelNetwork(dim, (*options.hidden, labels + 1))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        options: AutoAdapter.Options = self.options
        generator = torch.Generator().manual_seed(seed)
        reset_parameters(self, seed)
        fitted, held = samples.split(generator)
        held = held.certain()
        self.network.standardise(samples.features)
        limit = 2 * max(1, len(fitted) // (self.labels + 1))
        fitted = fitted[balanced_indices(fitted.targets, generator, limit=limit)]
        noise = torch.randn(ROWS, self.dim, generator=generator) * options.noise / self.network.scale
        masks = [
            (torch.rand(ROWS, width, generator=generator) >= options.dropout) / (1 - options.dropout)
            for width in options.hidden
        ]

        def disturbed(features: Tensor) -> Tensor:
            """The network's logits for other features than those, with some hidden units left out."""
            own = torch.randint(ROWS, (len(features),), generator=generator)
            common = torch.randint(ROWS, (1,), generator=generator)
            hidden, left = self.network.narrow(features + noise[own] + noise[common]), iter(masks)
            for layer in self.network.rest:
                hidden = layer(hidden)
                if isinstance(layer, nn.ReLU):
                    hidden = hidden * next(left)[own]
            return hidden

        def loss() -> Tensor:
            batch = fitted[torch.randint(len(fitted), (options.batch,), generator=generator)]
            return marginal_cross_entropy(disturbed(batch.features), batch.possible)

        def accuracy() -> float:
            return balanced_accuracy(self.network(held.features).argmax(1), held.targets)

        return train(self, options=options, loss=loss, accuracy=accuracy, progress=progress, to_the_end=True)

    def on_patches(self, features: Tensor) -> Tensor:
        return self.network.narrow(features)

    def on_pixels(self, maps: Tensor) -> Tensor:
        return self.network.rest(maps).softmax(-1)

    def join(self, appearance: Tensor, prior: Tensor) -> Tensor:
        """Bayes' rule.

        Args:
            appearance: ``[..., L + 1]``, what `predict` gave.
            prior: ``[..., L + 1]``, by place.

        Returns:
            ``[..., L + 1]`` probabilities.
        """
        return joined(appearance, prior, self.options.weight)


def joined(appearance: Tensor, prior: Tensor, weight: float) -> Tensor:
    """`AutoAdapter.join` with any weight."""
    scores = appearance.clamp(min=LEAST_APPEARANCE) ** weight * (prior + FLOOR)
    return scores / scores.sum(-1, keepdim=True)
