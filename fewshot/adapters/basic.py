"""The basic adapter: cosine similarity to the template's pixels, a fixed threshold, no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewshot.adapters.base import Adapter
from fewshot.adapters.samples import Samples
from fewshot.progress import Progress, silent
from fewshot.settings import number


class BasicAdapter(Adapter):
    """Mean cosine similarity to the template pixels of each label, thresholded (paper, section 2, "Basic adapter").

    The mean of cosines is the cosine's dot product with the mean of the unit template vectors, so no pair is ever
    formed. Similarity is computed on patches and interpolated: unit vectors are interpolated instead of being
    made unit again at every pixel, which is where this differs from the paper. For several labels each is
    compared on its own and the most similar wins (paper, section 3).
    """

    name: ClassVar[str] = "basic"
    description: ClassVar[str] = "cosine similarity to the template's pixels, no training"
    trained: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Options:
        """Settings.

        Attributes:
            threshold: similarity from which a pixel belongs to the label; the paper's 0.5.
            standardise: compare features in units of the support set's deviation from its mean. Off in the
                paper; frozen features share a large mean direction, which makes all cosines high without it.
            prototype: compare with the direction of the mean template vector instead of averaging the cosines to
                the single vectors. Averages stay below the threshold for large mixed structures such as a lung.
        """

        threshold: float = number(0.5, above=0, below=1)
        standardise: bool = False
        prototype: bool = False

    mean: Tensor
    scale: Tensor
    prototypes: Tensor

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("prototypes", torch.zeros(labels, dim))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:  # noqa: ARG002
        if self.options.standardise:
            self.mean = samples.features.mean(0)
            self.scale = 1 / samples.features.std(0).clamp(min=1e-6)
        unit = normalize((samples.features - self.mean) * self.scale, dim=1)
        self.prototypes = torch.stack(
            [unit[samples.targets == label].mean(0) for label in range(1, self.labels + 1)]
        )
        if self.options.prototype:
            self.prototypes = normalize(self.prototypes, dim=1)
        progress("train", 1, 1)
        return {}

    def on_patches(self, features: Tensor) -> Tensor:
        return normalize((features - self.mean) * self.scale, dim=-1) @ self.prototypes.T

    def on_pixels(self, maps: Tensor) -> Tensor:
        similarity = maps.clamp(min=0)
        background = torch.full_like(similarity[..., :1], self.options.threshold)
        scores = torch.cat([background, similarity], dim=-1)
        return scores / scores.sum(-1, keepdim=True)
