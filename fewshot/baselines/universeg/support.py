"""The support set of one label: labelled slices of the templates as UniverSeg takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewshot.baselines.universeg.network import SIZE
from fewshot.errors import FewshotError
from fewshot.support import Template
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec


@dataclass(frozen=True, eq=False)
class SupportSet:
    """Slices and masks of one label.

    Attributes:
        images: float32 ``[S, 128, 128]`` in [0, 1].
        masks: bool ``[S, 128, 128]``.
    """

    images: np.ndarray
    masks: np.ndarray


def square_spec(volumes: Sequence[Volume]) -> SliceSpec:
    """Plane and window that suit the templates; every volume's slices fill the square, whatever their millimetres."""
    return replace(resolve_spec(SliceSpec(size=SIZE), volumes), pixel_mm=None)


def square_stack(volume: Volume, spec: SliceSpec) -> SliceStack:
    """Slices whose longer side has 128 pixels, in squares of that size."""
    return SliceStack(volume, spec, patch=SIZE)


def centred(images: np.ndarray, stack: SliceStack, *, back: bool = False) -> np.ndarray:
    """Move slices ``[S, 128, 128]`` from the top left of their squares to the middle, or back."""
    shift = [(side - content) // 2 for side, content in zip(images.shape[1:], stack.content, strict=True)]
    return np.roll(images, [-by if back else by for by in shift], axis=(1, 2))


def collect_support(
    templates: Sequence[Template], label: str, spec: SliceSpec, *, limit: int, without: float, seed: int
) -> SupportSet:
    """Draw the support set of a label.

    Slices with the label, and some of those where it is known not to be: of a template in which it was drawn, the
    slices with other labels; of a complete one all. Slices of air are left out.

    Args:
        limit: slices at most.
        without: wanted share of slices without the label.

    Raises:
        FewshotError: if no slice shows the label on image content.
    """
    generator = np.random.default_rng(seed)
    stacks = [square_stack(template.volume, spec) for template in templates]
    shown, others = [], []
    for number, (template, stack) in enumerate(zip(templates, stacks, strict=True)):
        if label not in template.drawn:
            continue
        slices = stack.slices(template.labels)
        inside = (slices == template.names[label]).any((1, 2)) & ~stack.air
        known = ~stack.air if template.complete else (slices > 0).any((1, 2)) & ~stack.air
        shown += [(number, index) for index in np.flatnonzero(inside)]
        others += [(number, index) for index in np.flatnonzero(known & ~inside)]
    if not shown:
        raise FewshotError(f"No template slice with image content shows {label}; check its labels.")
    first, second = support_counts(len(shown), len(others), limit=limit, without=without)
    chosen = [
        places[index]
        for places, count in ((shown, first), (others, second))
        for index in np.sort(generator.choice(len(places), count, replace=False))
    ]
    images, masks = [], []
    for number, (template, stack) in enumerate(zip(templates, stacks, strict=True)):
        rows = [index for of, index in chosen if of == number]
        if rows:
            mask = stack.to_pixels((template.labels == template.names[label]).astype(np.uint8))[rows] > 0
            images.append(centred(stack.render(rows), stack))
            masks.append(centred(mask, stack))
    return SupportSet(np.concatenate(images), np.concatenate(masks))


def support_counts(shown: int, others: int, *, limit: int, without: float) -> tuple[int, int]:
    """How many slices with and without the label to take of those there are: at least one with it."""
    least_without = min(others, round(limit * without), limit - 1)
    first = min(shown, limit - least_without)
    return first, min(others, limit - first, round(first * without / (1 - without)))
