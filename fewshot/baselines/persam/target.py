"""What a label looks like to SAM's encoder, and where a slice looks like that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from fewshot.errors import FewshotError
from fewshot.refine.prompt import BACKGROUND, FOREGROUND, Prompt
from fewshot.refine.sam.model import Embedding, Frame
from fewshot.support import Template
from fewshot.volumes import SliceStack
from fewshot.volumes.resizing import resize

MOSTLY = 0.5
"""Share of a patch that the label covers where the patch counts as the label's."""

ROUNDING = 1e-6
"""By which the same patch may come out less similar the second time."""


@dataclass(frozen=True)
class Place:
    """A template slice: number of the template, number of the slice."""

    template: int
    index: int


@dataclass(frozen=True, eq=False)
class Target:
    """What was learned of one label.

    Attributes:
        feature: float32 ``[C]``, what is added to the prompt tokens.
        direction: float32 ``[C]`` of length 1, what the features of a slice are compared with.
        own: float32 ``[N]``, similarity of the template's own patches of the label.
    """

    feature: Tensor
    direction: Tensor
    own: Tensor

    def shown_by(self, patches: Tensor, quantile: float) -> bool:
        """Whether some patch is as similar as all but this share of the template's own are."""
        return float(patches.max()) > float(torch.quantile(self.own, quantile)) - ROUNDING


def largest_slices(
    templates: Sequence[Template], stacks: Sequence[SliceStack], label: str, count: int
) -> list[Place]:
    """The slices with the largest areas of a label, first one of every template, then the next.

    Raises:
        FewshotError: if no slice shows the label on image content.
    """
    ranked = []
    for number, (template, stack) in enumerate(zip(templates, stacks, strict=True)):
        if label not in template.drawn:
            continue
        areas = (stack.slices(template.labels) == template.names[label]).sum((1, 2))
        areas[stack.air] = 0
        order = np.argsort(-areas, kind="stable")[: int((areas > 0).sum())]
        ranked += [(rank, -areas[index], Place(number, int(index))) for rank, index in enumerate(order)]
    if not ranked:
        raise FewshotError(f"No template slice with image content shows {label}; check its labels.")
    return [place for *_, place in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def patches_inside(mask: np.ndarray, frame: Frame, size: int, grid: tuple[int, int]) -> Tensor:
    """Patches of the encoder that a mask covers, bool ``[h, w]``: more than half, or as much as any does.

    Args:
        mask: bool ``[rows, cols]`` on the native slice, not empty.
        size: pixels of the model's square image.
        grid: h and w.
    """
    square = torch.zeros(size, size)
    content = torch.from_numpy(resize(mask[np.newaxis], frame.content)[0])  # not the nearest: it may miss all
    square[: frame.content[0], : frame.content[1]] = content
    share = adaptive_avg_pool2d(square[None], grid)[0]
    return share >= min(MOSTLY, float(share.max()))


def learn(features: Sequence[Tensor], inside: Sequence[Tensor], *, peaks: bool = False) -> Target:
    """The target feature: mean over a label's patches in each template slice, then over the slices.

    Args:
        features: float32 ``[C, h, w]`` of each template slice.
        inside: bool ``[h, w]`` of each.
        peaks: half the mean and half the largest value of each channel, as PerSAM-F does.
    """
    own = [of[:, mask] for of, mask in zip(features, inside, strict=True)]
    feature = torch.stack([part.mean(1) for part in own]).mean(0)
    if peaks:
        feature = (feature + torch.stack([part.amax(1) for part in own]).mean(0)) / 2
    direction = feature / feature.norm().clamp(min=1e-12)
    return Target(feature, direction, torch.cat([similarity(part, direction) for part in own]))


def features_of(embedding: Embedding) -> Tensor:
    """What the encoder of a SAM model of the first version says of a slice, float32 ``[C, h, w]``."""
    (features,) = embedding.values()
    return torch.from_numpy(features.astype(np.float32)).reshape(features.shape[-3:])


def similarity(features: Tensor, direction: Tensor) -> Tensor:
    """Cosine of features ``[C, ...]`` with a direction ``[C]``."""
    return torch.tensordot(direction, features, 1) / features.norm(dim=0).clamp(min=1e-12)


def on_content(patches: Tensor, frame: Frame, size: int) -> Tensor:
    """The part of ``[h, w]`` that the slice fills, a view."""
    rows, cols = (-(-side * n // size) for side, n in zip(frame.content, patches.shape, strict=True))
    return patches[:rows, :cols]


def on_slice(values: Tensor, frame: Frame, size: int) -> Tensor:
    """Values of patches ``[h, w]`` on the native slice ``[rows, cols]``, linearly."""
    square = interpolate(values[None, None], (size, size), mode="bilinear")
    content = square[..., : frame.content[0], : frame.content[1]]
    return interpolate(content, frame.native, mode="bilinear")[0, 0]


def location_prior(alike: Tensor, *, negative: bool = True) -> Prompt:
    """The most similar pixel as a positive point and the least similar one as a negative one.

    Args:
        alike: similarity ``[rows, cols]`` on the native slice.
        negative: leave the negative point out if False.
    """
    cols = alike.shape[1]
    places = [int(alike.argmax()), *([int(alike.argmin())] if negative else [])]
    points = np.array([divmod(place, cols) for place in places], dtype=np.float64)
    return Prompt(points, np.array([FOREGROUND, BACKGROUND][: len(places)]))


def guidance_map(patches: Tensor, alike: Tensor, frame: Frame, size: int) -> Tensor:
    """What is added to the attention of every prompt token to every patch, ``[h * w]`` in [0, 1].

    The similarity, standardised over the slice, goes through a sigmoid. Patches beyond the slice get 0.

    Args:
        patches: similarity ``[h, w]``.
        alike: the same on the native slice.
    """
    given = on_content(patches, frame, size)
    map_ = torch.zeros_like(patches)
    on_content(map_, frame, size)[:] = ((given - alike.mean()) / alike.std().clamp(min=1e-12)).sigmoid()
    return map_.flatten()
