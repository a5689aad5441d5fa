"""How well ten random points inside a structure give its mask, on pictures that no training has seen."""

from __future__ import annotations

from collections.abc import Iterable

import cc3d
import numpy as np

from fewshot.phantoms import make_study
from fewshot.refine.prompts import prompts_for
from fewshot.refine.sam.model import Frame, SamModel
from fewshot.volumes import SliceSpec, SliceStack, Volume

LEAST = 30
"""Parts of a structure with fewer pixels in a slice are not asked for."""


def score_prompts(
    sam: SamModel,
    volume: Volume,
    labels: np.ndarray,
    *,
    strategy: str = "random",
    count: int = 10,
    planes: Iterable[str] = ("auto",),
    every: int = 1,
    seed: int = 0,
) -> dict[int, list[float]]:
    """Dice of SAM's mask for each connected part of each label in each slice, by label value.

    Args:
        sam: the model.
        volume: what it sees.
        labels: the truth, integer ``[X, Y, Z]``; it is also what the prompts are drawn from.
        strategy: one of ``PROMPTS``.
        count: points of a prompt.
        planes: planes of the slices.
        every: only each so many-th slice.
        seed: of the prompts.
    """
    scores: dict[int, list[float]] = {}
    for plane in planes:
        stack = SliceStack(volume, SliceSpec(plane=plane, size=sam.size), patch=sam.patch)
        truth = stack.slices(labels)
        for index in np.flatnonzero(truth.any((1, 2)))[::every].tolist():
            parts = [
                (int(value), component == part)
                for value in np.unique(truth[index])
                if value
                for component in [cc3d.connected_components(truth[index] == value, connectivity=8)]
                for part in range(1, int(component.max()) + 1)
            ]
            parts = [(value, mask) for value, mask in parts if mask.sum() >= LEAST]
            if not parts:
                continue
            rng = np.random.default_rng([seed, index])
            prompts = [
                prompts_for(strategy, mask, mask.astype(np.float32), count=count, rng=rng)
                for _, mask in parts
            ]
            rows, cols = stack.content
            embedding = sam.encode(stack.render([index])[:, :rows, :cols])[0]
            masks = (
                sam.predict(embedding, prompts, Frame(native=stack.native, content=stack.content)).logits[
                    :, 0
                ]
                > 0
            )
            for (value, mask), found in zip(parts, masks, strict=True):
                dice = 2 * (mask & found).sum() / (mask.sum() + found.sum())
                scores.setdefault(value, []).append(float(dice))
    return scores


def score_phantoms(sam: SamModel, seeds: Iterable[int], **settings: object) -> dict[int, list[float]]:
    """`score_prompts` over made-up studies, put together."""
    scores: dict[int, list[float]] = {}
    for seed in seeds:
        for value, dice in score_prompts(sam, *make_study(seed), **settings).items():  # type: ignore[arg-type]
            scores.setdefault(value, []).extend(dice)
    return scores
