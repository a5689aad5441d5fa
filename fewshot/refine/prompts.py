"""Ways to tell a promptable model about a localised component: points, a box, a rough mask (paper, figure 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans
from scipy.ndimage import distance_transform_edt
from scipy.special import logit

from fewshot.errors import FewshotError
from fewshot.refine.prompt import BACKGROUND, FOREGROUND, Prompt

LEAST_LOGIT_SHARE = 1e-4
"""Probabilities are kept this far from 0 and 1 before they become logits, about 9, as SAM's own masks have."""

LOW = 0.25
"""Background points lie where the adapter's probability of the label is below this."""

RING = (0.5, 1.5)
"""The ring of background points begins and ends at these multiples of the component's radius: localisation
often covers a structure's core only, so that what is nearer may belong to it."""

RING_GAP, RING_WIDTH = 2.0, 4.0
"""Pixels added to its inner and outer edge, for components of a few pixels."""

CLUSTERED = 2000
"""Pixels of a component that k-means looks at; more would not move ten points."""

SPREAD = 0.5
"""Certain points keep this share of the distance that points spread evenly over the component would have."""


@dataclass(frozen=True, eq=False)
class Component:
    """What a strategy is told.

    Attributes:
        mask: bool ``[rows, cols]``, one component.
        label: bool ``[rows, cols]``, all components of its label.
        probability: float32 ``[rows, cols]``, the adapter's, of the label.
        pixels: int ``[N, 2]``, (row, col) of the component's pixels.
        count: points that are wanted.
        rng: where chance comes from.
    """

    mask: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    pixels: np.ndarray
    count: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Strategy:
    """A way to prompt.

    Attributes:
        description: what is said to the model.
        build: makes the prompt.
    """

    description: str
    build: Callable[[Component], Prompt]


def prompts_for(
    strategy: str,
    mask: np.ndarray,
    probability: np.ndarray,
    *,
    count: int = 10,
    rng: np.random.Generator,
    label: np.ndarray | None = None,
) -> Prompt:
    """Prompt for one component of one label in one slice.

    Args:
        strategy: a key of ``PROMPTS``.
        mask: bool ``[rows, cols]``, the component.
        probability: float32 ``[rows, cols]``, the adapter's probability of the label.
        count: points; a component with fewer pixels gives each of them once.
        rng: same state, same prompt.
        label: bool ``[rows, cols]``, all components of the label; the one alone if not told.

    Raises:
        FewshotError: an unknown strategy, or a mask without a pixel.
    """
    check_prompts(strategy)
    pixels = np.argwhere(mask)
    if not len(pixels):
        raise FewshotError("There is no prompt for an empty mask; prompt for components with pixels only.")
    of_label = mask if label is None else label | mask
    return PROMPTS[strategy].build(Component(mask, of_label, probability, pixels, max(1, count), rng))


def check_prompts(strategy: str) -> str:
    """The strategy's name, if there is one.

    Raises:
        FewshotError: if not.
    """
    if strategy not in PROMPTS:
        raise FewshotError(f"There is no prompt strategy {strategy!r}; choose one of {', '.join(PROMPTS)}.")
    return strategy


def _random(of: Component) -> Prompt:
    return _inside(_some(of.pixels, of.count, of.rng))


def _kmeans(of: Component) -> Prompt:
    if len(of.pixels) <= of.count:
        return _inside(of.pixels)
    sample = _some(of.pixels, CLUSTERED, of.rng).astype(float)
    start = _some(sample, of.count, of.rng)
    centres, _ = kmeans(sample, start)  # clusters that run empty are dropped
    chosen = np.unique([_nearest(of.pixels, centre) for centre in centres])
    rest = np.delete(np.arange(len(of.pixels)), chosen)
    more = _some(rest, of.count - len(chosen), of.rng)
    return _inside(of.pixels[np.concatenate([chosen, more])])


def _centroid(of: Component) -> Prompt:
    return _inside(of.pixels[[_nearest(of.pixels, of.pixels.mean(0))]])


def _box(of: Component) -> Prompt:
    return _inside(of.pixels[:0], box=_box_of(of))


def _box_and_random(of: Component) -> Prompt:
    return _inside(_some(of.pixels, of.count, of.rng), box=_box_of(of))


def _background(of: Component) -> Prompt:
    inside = _some(of.pixels, of.count, of.rng)
    outside = _some(_ring(of), max(1, of.count // 2), of.rng)
    labels = [FOREGROUND] * len(inside) + [BACKGROUND] * len(outside)
    return Prompt(np.concatenate([inside, outside]).astype(np.float32), np.array(labels, np.int64))


def _mask(of: Component) -> Prompt:
    here = np.where(
        of.label & ~of.mask, 0.0, of.probability
    )  # the label's other parts have prompts of their own
    logits = logit(np.clip(here.astype(np.float32), LEAST_LOGIT_SHARE, 1 - LEAST_LOGIT_SHARE))
    best = _most_certain(of, count=1)
    return Prompt(best.points, best.labels, mask=logits.astype(np.float32))


def _certain(of: Component) -> Prompt:
    return _most_certain(of, count=of.count)


PROMPTS: dict[str, Strategy] = {
    "random": Strategy("random points inside the component, as in the paper", _random),
    "kmeans": Strategy("points spread over the component by k-means", _kmeans),
    "centroid": Strategy("one point, the component's pixel nearest to its centroid", _centroid),
    "box": Strategy("the component's bounding box", _box),
    "box+random": Strategy("the bounding box and random points", _box_and_random),
    "background": Strategy("random points, and points of the background around the component", _background),
    "mask": Strategy("the adapter's probability as a rough mask, and its most certain point", _mask),
    "certain": Strategy("the adapter's most certain points, at a distance from each other", _certain),
}


def _inside(points: np.ndarray, box: tuple[float, float, float, float] | None = None) -> Prompt:
    return Prompt(points.astype(np.float32), np.full(len(points), FOREGROUND, np.int64), box)


def _some(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many different ones, or all."""
    return items[rng.choice(len(items), count, replace=False)] if len(items) > count else items


def _nearest(pixels: np.ndarray, centre: np.ndarray) -> int:
    return int(((pixels - centre) ** 2).sum(1).argmin())


def _box_of(of: Component) -> tuple[float, float, float, float]:
    (top, left), (bottom, right) = of.pixels.min(0), of.pixels.max(0)
    return float(top), float(left), float(bottom), float(right)


def _ring(of: Component) -> np.ndarray:
    """Pixels ``[N, 2]`` around the component that are none of the label, as far as the adapter knows."""
    radius = np.sqrt(len(of.pixels) / np.pi)
    inner, outer = RING[0] * radius + RING_GAP, RING[1] * radius + RING_GAP + RING_WIDTH
    margin = int(np.ceil(outer)) + 1
    first = np.maximum(of.pixels.min(0) - margin, 0)
    last = of.pixels.max(0) + margin + 1
    window = (slice(first[0], last[0]), slice(first[1], last[1]))
    distance = distance_transform_edt(~of.mask[window])
    free = ~of.label[window] & (of.probability[window] < LOW)
    return np.argwhere(free & (distance >= inner) & (distance <= outer)) + first


def _most_certain(of: Component, count: int) -> Prompt:
    pixels = of.rng.permutation(of.pixels)  # chance decides where the adapter is equally certain
    certainty = of.probability[tuple(pixels.T)].astype(np.float32)
    apart = SPREAD * np.sqrt(len(pixels) / count)
    chosen: list[np.ndarray] = []
    while len(pixels) and len(chosen) < count:
        best = pixels[certainty.argmax()]
        chosen.append(best)
        far = ((pixels - best) ** 2).sum(1) > apart**2
        pixels, certainty = pixels[far], certainty[far]
    return _inside(np.array(chosen))
