"""What adapters that compare with stored template pixels share: a narrow linear space, and votes of doubtful pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

SHARING_STEPS = 10
"""Of expectation maximisation; a class that explains all votes holds all but 1/1000 of them by then."""


class Projection(nn.Module):
    """Standardised features, turned to their leading principal components: cosines in it cost less."""

    mean: Tensor
    weight: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("weight", torch.zeros(0, dim))

    def fit(self, features: Tensor, components: int) -> None:
        """Take mean, deviation and components from the support set.

        Args:
            features: ``[N, D]`` pixel features.
            components: dimensions kept; all are, unturned, where there are not more.
        """
        dim = features.shape[1]
        self.mean = features.mean(0)
        centred = features - self.mean
        scale = 1 / centred.square().mean(0).sqrt().clamp(min=1e-6)
        axes = torch.eye(dim)
        if components < dim:
            standard = (centred * scale).double()
            axes = torch.linalg.eigh(standard.T @ standard).eigenvectors[:, -components:].T.float()
        self.weight = axes * scale

    def forward(self, features: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., K]``."""
        return nn.functional.linear(features, self.weight, -self.weight @ self.mean)

    def directions(self, features: Tensor) -> Tensor:
        """Unit vectors in the narrow space, ``[..., D]`` -> ``[..., K]``: their products are cosines."""
        return normalize(self(features), dim=-1)


def kinds_of(possible: Tensor) -> tuple[Tensor, Tensor]:
    """What the pixels are known to be: classes, and sets of classes for pixels of doubtful class.

    Args:
        possible: bool ``[N, C]``, see `Samples`.

    Returns:
        bool ``[A, C]`` the A different rows, and int64 ``[N]`` which of them each pixel has.
    """
    kinds, members = possible.unique(dim=0, return_inverse=True)
    return kinds, members


def share_votes(votes: Tensor, kinds: Tensor) -> Tensor:
    """The class probabilities that explain the votes best.

    A vote for a certain class counts for it. A vote of a background pixel of a template in which label k was never
    drawn says "background or k" and decides nothing between the two: such votes go to the classes that the other
    votes favour (maximum likelihood, by expectation maximisation from equal probabilities). Without doubtful
    pixels the probabilities are the votes.

    Args:
        votes: ``[..., A]``, not negative, summing to one over the last axis.
        kinds: bool ``[A, C]``: the classes that each vote may mean.

    Returns:
        ``[..., C]``, summing to one.
    """
    classes = kinds.to(votes)
    if bool((kinds.sum(1) == 1).all()):
        return votes @ classes
    shares = votes.new_full((*votes.shape[:-1], kinds.shape[1]), 1 / kinds.shape[1])
    for _ in range(SHARING_STEPS):
        explained = shares @ classes.T
        shares = shares * ((votes / explained.clamp(min=1e-30)) @ classes)
    return shares / shares.sum(-1, keepdim=True)
