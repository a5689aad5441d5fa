"""Local prototypes: several mean features per class and slice, compared by cosine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn.functional import normalize

from fewshot.adapters.base import Adapter
from fewshot.adapters.references import Projection, kinds_of, share_votes
from fewshot.adapters.samples import Samples
from fewshot.progress import Progress, silent
from fewshot.settings import number

CHUNK = 4096
"""Patches at once."""

MAX_PROTOTYPES = 1600
"""Of all labels together: with many labels each has fewer, and a slice takes no longer."""


class LocalPrototypes(Adapter):
    """The adaptive local prototypes of ALPNet, without its trained encoder (Ouyang et al. 2020).

    A class has many prototypes, the background too, because one mean cannot stand for a mixed structure. The
    similarity to a class is the mean of the scaled cosines to its prototypes, each weighted by their softmax, so
    that the nearest one decides; a softmax over the classes follows. ALPNet's prototypes are means over windows of
    the support image. Pixels of the support set come here with their slice but without their place in it, so the
    prototypes are k-means centres of a class's unit vectors within a slice. As in ALPNet every label also has one
    prototype for all of it.
    """

    name: ClassVar[str] = "local-prototypes"
    description: ClassVar[str] = "several mean features per class and slice, no training"
    trained: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Options:
        """Settings.

        Attributes:
            prototypes: local prototypes of a label, spread over its slices; the background has twice as many. With more
                than ten labels each has fewer.
            scale: factor of the cosines before the softmax; ALPNet's 20.
            components: principal components compared.
        """

        prototypes: int = 160
        scale: float = number(20.0, above=0, below=1000)
        components: int = 64

    prototypes: Tensor
    prototype_kinds: Tensor
    kinds: Tensor

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.projection = Projection(dim)
        self.register_buffer("prototypes", torch.zeros(0, min(dim, options.components)))
        self.register_buffer("prototype_kinds", torch.zeros(0, dtype=torch.long))
        self.register_buffer("kinds", torch.zeros(0, labels + 1, dtype=torch.bool))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        options: LocalPrototypes.Options = self.options
        generator = np.random.default_rng(seed)
        self.projection.fit(samples.features, options.components)
        directions = self.projection.directions(samples.features)
        self.kinds, members = kinds_of(samples.possible)
        each = min(options.prototypes, max(1, MAX_PROTOTYPES // self.labels))
        found, of_kind = [], []
        for kind, classes in enumerate(self.kinds):
            mine = members == kind
            background = bool(classes[0])
            budget = 2 * options.prototypes if background else each
            centres = local_means(directions[mine], samples.slices[mine], budget, generator)
            if not background:
                centres = torch.cat([centres, directions[mine].mean(0, keepdim=True)])
            found.append(normalize(centres, dim=1))
            of_kind.append(torch.full((len(centres),), kind))
            progress("train", kind + 1, len(self.kinds))
        self.prototypes, self.prototype_kinds = torch.cat(found), torch.cat(of_kind)
        return {}

    def on_patches(self, features: Tensor) -> Tensor:
        """``[B, h, w, D]`` -> similarity to each kind of prototypes ``[B, h, w, A]``."""
        chunks = [self._compare(patches) for patches in features.flatten(0, 2).split(CHUNK)]
        return torch.cat(chunks).unflatten(0, features.shape[:3])

    def on_pixels(self, maps: Tensor) -> Tensor:
        return share_votes(maps.softmax(-1), self.kinds)

    def _compare(self, patches: Tensor) -> Tensor:
        scores = self.options.scale * (self.projection.directions(patches) @ self.prototypes.T)
        of_kinds = [scores[:, self.prototype_kinds == kind] for kind in range(len(self.kinds))]
        return torch.stack([(own.softmax(1) * own).sum(1) for own in of_kinds], dim=1)


def local_means(directions: Tensor, slices: Tensor, budget: int, generator: np.random.Generator) -> Tensor:
    """k-means centres within slices.

    Args:
        directions: ``[N, K]`` unit vectors of one class.
        slices: ``[N]`` the slice of each.
        budget: about so many centres in all, the same number in every slice; with more slices than that, slices
            are drawn.

    Returns:
        ``[M, K]`` with M at least 1, at most ``budget``; not unit vectors.
    """
    found = slices.unique().numpy()
    if len(found) > budget:
        found = np.sort(generator.choice(found, budget, replace=False))
    each = max(1, budget // len(found))
    return torch.cat([_centres(directions[slices == index], each, generator) for index in found])


def _centres(points: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    if len(points) <= count:
        return points
    distinct = points.unique(dim=0)
    if len(distinct) <= count:  # patches of plain black are all alike
        return distinct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster, whose centre stays where it was
        centres, members = kmeans2(points.double().numpy(), count, minit="++", seed=generator)
    return torch.from_numpy(centres[np.unique(members)]).float()
