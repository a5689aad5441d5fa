"""Masks of several components and labels of a slice become one class map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Taken:
    """A mask that takes the place of a localised component.

    Attributes:
        label: of the component, from 1.
        localised: bool ``[rows, cols]``, the component.
        mask: bool ``[rows, cols]``.
        logits: float32 ``[rows, cols]``, how certain the model is of each pixel.
    """

    label: int
    localised: np.ndarray
    mask: np.ndarray
    logits: np.ndarray


def merge(
    localised: np.ndarray, taken: Sequence[Taken], probability: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The class map of a slice.

    A pixel is claimed by the labels whose taken masks hold it, and by the label localised there if that component
    stays as it is. Of several, the one to which the adapter gives the higher probability has it: no mask overrides
    what was localised with higher probability, unless that label's own mask gave it up. Where the adapter makes no
    difference, what was localised stays, else the higher logit decides. Unclaimed pixels are background.

    Args:
        localised: integer ``[rows, cols]``, 0 background, k the k-th label.
        taken: masks; components without one stay as they are.
        probability: the adapter's, of a label, float32 ``[rows, cols]``.

    Returns:
        A new array of the same type.
    """
    stays = localised.copy()
    for each in taken:
        stays[each.localised] = 0
    merged = np.zeros_like(localised)
    highest = np.full(localised.shape, -np.inf, np.float32)
    certainty = np.full(localised.shape, -np.inf, np.float32)
    for label in sorted({each.label for each in taken} | set(np.unique(stays[stays > 0]).tolist())):
        own = [each for each in taken if each.label == label]
        at = np.nonzero(np.logical_or.reduce([stays == label, *(each.mask for each in own)]))
        logits = np.where(stays[at] == label, np.inf, -np.inf)
        for each in own:
            np.maximum(logits, np.where(each.mask[at], each.logits[at], -np.inf), out=logits)
        of_label = probability(label)[at]
        better = (of_label > highest[at]) | ((of_label == highest[at]) & (logits > certainty[at]))
        won = tuple(axis[better] for axis in at)
        merged[won], highest[won], certainty[won] = label, of_label[better], logits[better]
    return merged
