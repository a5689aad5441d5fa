"""The nearest-neighbour adapter: the template pixels most like a place vote for its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewshot.adapters.base import Adapter
from fewshot.adapters.references import Projection, kinds_of, share_votes
from fewshot.adapters.samples import Samples
from fewshot.progress import Progress, silent
from fewshot.settings import number

CHUNK = 2048
"""Patches at once: 32 MiB of similarities to four thousand references."""

MIN_REFERENCES = 8
"""Of every class, however many classes share the references."""


class NearestNeighbours(Adapter):
    """The k template pixels with the highest cosine vote, the nearer the heavier.

    Frozen features with k nearest neighbours are how self-supervised backbones are judged (Wu et al. 2018, Caron
    et al. 2021); here the neighbours are pixels of the templates. Features are standardised by the support set and
    reduced to its principal components. Votes are taken for patches and interpolated to pixels.
    """

    name: ClassVar[str] = "knn"
    description: ClassVar[str] = "vote of the most similar template pixels, no training"
    trained: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Options:
        """Settings.

        Attributes:
            k: neighbours that vote.
            references: template pixels compared with: half of the background, the others shared among the labels (at
                least 8 of each class).
            prior: a class weighs as its share of the labelled slices to this power: 1 as the classes occur, 0 all
                the same, which finds more of small structures and more that is none
                (docs/explanation/baselines.md).
            temperature: votes weigh exp(cosine / temperature); a large one makes them equal.
            components: principal components compared.
        """

        k: int = 15
        references: int = 4000
        prior: float = number(0.5, above=-1e-9, below=1 + 1e-9)
        temperature: float = number(0.07, above=0, below=100)
        components: int = 64

    references: Tensor
    reference_kinds: Tensor
    reference_weights: Tensor
    kinds: Tensor

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.projection = Projection(dim)
        self.register_buffer("references", torch.zeros(0, min(dim, options.components)))
        self.register_buffer("reference_kinds", torch.zeros(0, dtype=torch.long))
        self.register_buffer("reference_weights", torch.zeros(0))
        self.register_buffer("kinds", torch.zeros(0, labels + 1, dtype=torch.bool))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        options: NearestNeighbours.Options = self.options
        generator = torch.Generator().manual_seed(seed)
        self.projection.fit(samples.features, options.components)
        index = draw_references(samples, options.references, generator)
        self.reference_weights = class_weights(samples, index, prior=options.prior)
        self.kinds, members = kinds_of(samples.possible)
        self.reference_kinds = members[index]
        self.references = self.projection.directions(samples.features[index])
        progress("train", 1, 1)
        return {}

    def on_patches(self, features: Tensor) -> Tensor:
        """``[B, h, w, D]`` -> votes ``[B, h, w, A]``, one share for each kind of reference."""
        chunks = [self._vote(patches) for patches in features.flatten(0, 2).split(CHUNK)]
        return torch.cat(chunks).unflatten(0, features.shape[:3])

    def on_pixels(self, maps: Tensor) -> Tensor:
        return share_votes(maps, self.kinds)

    def _vote(self, patches: Tensor) -> Tensor:
        cosines = self.projection.directions(patches) @ self.references.T
        nearest, index = cosines.topk(min(self.options.k, cosines.shape[1]), dim=1)
        weights = ((nearest - nearest[:, :1]) / self.options.temperature).exp()
        weights *= self.reference_weights[index]
        votes = weights.new_zeros(len(patches), len(self.kinds))
        votes.scatter_add_(1, self.reference_kinds[index], weights)
        return votes / votes.sum(1, keepdim=True)


def draw_references(samples: Samples, limit: int, generator: torch.Generator) -> Tensor:
    """Indices of template pixels: half of the background, the others in equal parts of the labels, each once."""
    chosen = []
    for target in range(samples.labels + 1):
        quota = max(MIN_REFERENCES, limit // 2 // (samples.labels if target else 1))
        members = torch.nonzero(samples.targets == target).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen)


def class_weights(samples: Samples, index: Tensor, *, prior: float) -> Tensor:
    """The weight of each drawn pixel's vote, float32 ``[R]`` with mean 1.

    Args:
        samples: all pixels.
        index: ``[R]`` those drawn.
        prior: the votes of a class weigh together as its share of the labelled slices to this power.
    """
    classes = samples.labels + 1
    totals = torch.zeros(classes).index_add_(0, samples.targets, samples.weights).pow(prior)
    targets = samples.targets[index]
    weights = (totals / torch.bincount(targets, minlength=classes).clamp(min=1))[targets]
    return weights / weights.mean()
