"""The contrastive adapter: a Siamese network that tells whether a pixel is of the same RoI as a template pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewshot.adapters.base import Adapter, PixelNetwork
from fewshot.adapters.classification import reset_parameters
from fewshot.adapters.samples import Samples
from fewshot.adapters.training import TrainingOptions, balanced_accuracy, train
from fewshot.progress import Progress, silent
from fewshot.settings import number

MIN_REFERENCES = 4
"""Template vectors per label, however many labels there are: a template only shifts what the pixel itself says."""

SAFE_EXPONENT = 80.0
"""Where all templates, or all pixels, have logits within this range, ``a . b`` cannot underflow: at the largest
logit of one side the other contributes at least exp(-80), which float32 still holds."""

CHUNK = 2048
"""Pixels at once: their quotients with 100 templates then stay in the processor's cache."""

FEW_CLASSES = 4


class ContrastiveAdapter(Adapter):
    """Shared-weight network f, concatenated outputs, a linear layer, softmax (paper, section 2, figures 4 to 6).

    A pair (a in RoI k, b in RoI k) has class k, a pair (a in RoI k, b outside k) class 0; with one label this is
    the paper's binary adapter. A pixel is paired with template pixels of every label. Label k's probability is the
    mean of class k over the pairs with k's own templates; pairs with other labels' templates cannot be of class k.
    The background is what no label claims: the product of (1 - label probability), and all are scaled to sum to
    one. With one label this is exactly the mean softmax.
    """

    name: ClassVar[str] = "contrastive"
    description: ClassVar[str] = "Siamese network: is this pixel of the template's RoI?"
    trained: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options(TrainingOptions):
        """Settings.

        Attributes:
            hidden: widths of the two layers of f.
            negatives: share of negative pairs in a batch. The paper does not say; 0.8 found more than 0.5 on four
                of five sets (docs/explanation/method.md).
            references: template vectors compared with at inference, shared among the labels (at least 4 each).
        """

        hidden: tuple[int, int] = (64, 64)
        negatives: float = number(0.8, above=0, below=1)
        references: int = 100

    references: Tensor
    reference_labels: Tensor

    def __init__(self, dim: int, labels: int, options: Options) -> None:
        super().__init__(dim, labels, options)
        self.network = PixelNetwork(dim, options.hidden, final_activation=True)
        self.head = nn.Linear(2 * options.hidden[-1], labels + 1)
        self.register_buffer("references", torch.zeros(0, dim))
        self.register_buffer("reference_labels", torch.zeros(0, dtype=torch.long))

    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        options: ContrastiveAdapter.Options = self.options
        generator = torch.Generator().manual_seed(seed)
        reset_parameters(self, seed)
        fitted, held = samples.split(generator)
        held = held.certain()
        self.network.standardise(samples.features)
        self._choose_references(fitted, generator)
        pairs = PairSampler(fitted, negatives=options.negatives, generator=generator)

        def loss() -> Tensor:
            first, second, target = pairs.draw(options.batch)
            both = self.network(torch.cat([fitted.features[first], fitted.features[second]]))
            return cross_entropy(self.head(torch.cat(both.chunk(2), dim=1)), target)

        def accuracy() -> float:
            probabilities = self._combine(self.network(self.references), self.network(held.features))
            return balanced_accuracy(probabilities.argmax(1), held.targets)

        return train(self, options=options, loss=loss, accuracy=accuracy, progress=progress)

    def on_patches(self, features: Tensor) -> Tensor:
        return self.network.narrow(features)

    def on_pixels(self, maps: Tensor) -> Tensor:
        pixels = self.network.rest(maps)
        return self._combine(self.network(self.references), pixels.flatten(0, 2)).unflatten(
            0, pixels.shape[:3]
        )

    def _choose_references(self, samples: Samples, generator: torch.Generator) -> None:
        each = max(MIN_REFERENCES, self.options.references // self.labels)
        chosen = []
        for label in range(1, self.labels + 1):
            members = torch.nonzero(samples.targets == label).flatten()
            chosen.append(members[torch.randperm(len(members), generator=generator)[:each]])
        index = torch.cat(chosen)
        self.references = samples.features[index]
        self.reference_labels = samples.targets[index]

    def _combine(self, templates: Tensor, pixels: Tensor) -> Tensor:
        """``[T, M]`` and ``[P, M]`` outputs of f -> ``[P, L + 1]`` probabilities."""
        width = templates.shape[1]
        left = nn.functional.linear(templates, self.head.weight[:, :width], self.head.bias)
        right = nn.functional.linear(pixels, self.head.weight[:, width:])
        weights = own_class_weights(self.reference_labels, self.labels + 1)
        # Classes first: sums over a handful of classes are slow along the last axis.
        own = mean_softmax(left, right, weights).T[1:]
        background = (1 - own).clamp(min=0).prod(0, keepdim=True)
        scores = torch.cat([background, own])
        return (scores / scores.sum(0)).T.contiguous()


class PairSampler:
    """Draws pairs of pixels: first in a label's RoI, second inside (positive) or surely outside it (negative).

    Negatives are "anywhere in the non-RoI region" (paper, figure 3), as often as such pixels occur in the slices.
    """

    def __init__(self, samples: Samples, *, negatives: float, generator: torch.Generator) -> None:
        self._negatives = negatives
        self._generator = generator
        labels = range(1, samples.labels + 1)
        self._inside = [torch.nonzero(samples.targets == label).flatten() for label in labels]
        self._outside = [samples.certain_negatives(label) for label in labels]
        self._weights = [samples.weights[outside] for outside in self._outside]

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of both pixels and the class of each pair, ``[count]`` each; labels in equal parts."""
        labels = torch.randint(len(self._inside), (count,), generator=self._generator)
        negative = torch.rand(count, generator=self._generator) < self._negatives
        first, second = torch.empty_like(labels), torch.empty_like(labels)
        for index, (inside, outside) in enumerate(zip(self._inside, self._outside, strict=True)):
            mine = labels == index
            first[mine] = self._pick(inside, int(mine.sum()))
            second[mine] = self._pick(inside, int(mine.sum()))
            apart = mine & negative
            if len(outside):
                second[apart] = self._pick_outside(index, int(apart.sum()))
            else:
                negative = (
                    negative & ~mine
                )  # the label covers all that was drawn: there is nothing outside it
        return first, second, torch.where(negative, 0, labels + 1)

    def _pick(self, members: Tensor, count: int) -> Tensor:
        return members[torch.randint(len(members), (count,), generator=self._generator)]

    def _pick_outside(self, index: int, count: int) -> Tensor:
        if not count:
            return self._outside[index][:0]
        drawn = torch.multinomial(self._weights[index], count, replacement=True, generator=self._generator)
        return self._outside[index][drawn]


def own_class_weights(reference_labels: Tensor, classes: int) -> Tensor:
    """``[T, C]``: 1 / (number of templates of label k) at a template's own label k, else 0."""
    weights = nn.functional.one_hot(reference_labels, classes).float()
    return weights / weights.sum(0).clamp(min=1)


def mean_softmax(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over templates of ``softmax(left[t] + right[p])``, without forming the pairs.

    With ``a = exp(left)`` and ``b = exp(right)`` a softmax is ``a_c b_c / (a . b)``, so the mean over templates is
    ``b_c * sum_t w_tc a_tc / (a_t . b_p)``: two matrix products instead of ``T x P`` softmaxes.

    Args:
        left: ``[T, C]`` logits of the templates.
        right: ``[P, C]`` logits of the pixels.
        weights: ``[T, C]`` weight of each template for each class.

    Returns:
        ``[P, C]``.
    """
    left, right = left - left.amax(1, keepdim=True), right - right.amax(1, keepdim=True)
    if max(float(left.min()), float(right.min())) < -SAFE_EXPONENT:
        return sum_of_softmaxes(left, right, weights)
    a = left.exp()
    weighted = (a * weights).T
    # Pixels along the last axis: both products then read and write memory in order.
    chunks = [
        b * (weighted @ products(a, b).reciprocal_()) for b in right.exp().T.contiguous().split(CHUNK, dim=1)
    ]
    return torch.cat(chunks, dim=1).T


def products(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``; with a handful of classes in between, adding outer products is faster than a matrix product."""
    if a.shape[1] > FEW_CLASSES:
        return a @ b
    total = a[:, :1] * b[:1]
    for index in range(1, a.shape[1]):
        total.addcmul_(a[:, index : index + 1], b[index : index + 1])
    return total


def sum_of_softmaxes(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """The same, template by template: slower, but safe for logits of any size."""
    total = torch.zeros_like(right)
    for logits, weight in zip(left, weights, strict=True):
        total += (logits + right).softmax(1) * weight
    return total
