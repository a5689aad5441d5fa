"""Whether a mask is taken, or the localised component stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np

UNSURE = "unsure"
TOO_LITTLE = "covers too little"
TOO_MUCH = "grows too much"
SWALLOWS = "swallows the image"
REASONS = (UNSURE, TOO_LITTLE, TOO_MUCH, SWALLOWS)

LARGE_ANYWAY = 1.5
"""Where a component is itself a large part of the body (brain), a mask may still be so many times larger."""


@dataclass(frozen=True)
class Rules:
    """When a mask is taken.

    Attributes:
        quality: least quality (expected IoU) that the model gives its own mask.
        agreement: least share of the component that the mask covers.
        growth: most times the component's area: the paper's localisation may be a small core of the structure.
        body: largest share of the body seen in the slice.
    """

    quality: float = 0.5
    agreement: float = 0.5
    growth: float = 10.0
    body: float = 0.5


def attached(mask: np.ndarray, localised: np.ndarray) -> np.ndarray:
    """The pieces of a mask that touch the component; islands elsewhere are no part of what was prompted for.

    Args:
        mask: bool ``[rows, cols]``.
        localised: bool ``[rows, cols]``, the component.
    """
    pieces = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=8)
    touched = np.zeros(int(pieces.max()) + 1, bool)
    touched[pieces[localised]] = True
    touched[0] = False
    return touched[pieces]


def body_pixels(seen: np.ndarray) -> int:
    """Pixels of the body in a slice: what is seen, and what it surrounds (lungs are as black as air).

    Args:
        seen: bool ``[rows, cols]``, brighter than air.
    """
    dark = cc3d.connected_components(np.ascontiguousarray(~seen), connectivity=4)
    edges = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    outside = np.zeros(int(dark.max()) + 1, bool)
    outside[edges] = True
    outside[0] = False
    return int(seen.size - outside[dark].sum())


def judge(
    mask: np.ndarray, localised: np.ndarray, quality: float, rules: Rules, *, body: int | None = None
) -> str | None:
    """Why a mask is not taken.

    Args:
        mask: bool ``[rows, cols]``.
        localised: bool ``[rows, cols]``, the component that was prompted for.
        quality: what the model expects of it.
        rules: see there.
        body: pixels of the body in this slice, the whole slice if not known.

    Returns:
        One of ``REASONS``, or None if it is taken.
    """
    area, component = int(mask.sum()), int(localised.sum())
    if not quality >= rules.quality:  # a quality that is no number is none
        return UNSURE
    if not area or agreement(mask, localised) < rules.agreement:
        return TOO_LITTLE
    if area > max(rules.body * (mask.size if body is None else body), LARGE_ANYWAY * component):
        return SWALLOWS
    if area > rules.growth * component:
        return TOO_MUCH
    return None


def agreement(mask: np.ndarray, localised: np.ndarray) -> float:
    """Share of the component that lies inside the mask; 0 for an empty component."""
    component = int(localised.sum())
    return float((mask & localised).sum() / component) if component else 0.0


def choose(
    masks: np.ndarray, qualities: np.ndarray, localised: np.ndarray, rules: Rules, *, body: int | None = None
) -> tuple[int, str | None]:
    """The best of a model's candidates, by quality times agreement, those that can be taken first.

    Args:
        masks: bool ``[M, rows, cols]``.
        qualities: float ``[M]``.
        localised: bool ``[rows, cols]``, the component that was prompted for.
        rules: see there.
        body: pixels of the body in this slice.

    Returns:
        Its index, and why it is not taken, None if it is.
    """
    reasons = [
        judge(mask, localised, float(quality), rules, body=body)
        for mask, quality in zip(masks, qualities, strict=True)
    ]
    worth = [
        (reason is None, float(quality) * agreement(mask, localised))
        for mask, quality, reason in zip(masks, qualities, reasons, strict=True)
    ]
    best = max(range(len(worth)), key=worth.__getitem__)
    return best, reasons[best]
