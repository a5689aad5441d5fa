"""Learn every label on its largest template slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.baselines.persam.fine_tuning import learn_weights
from fewshot.baselines.persam.target import (
    Place,
    Target,
    features_of,
    largest_slices,
    learn,
    location_prior,
    on_slice,
    patches_inside,
    similarity,
)
from fewshot.progress import Progress
from fewshot.refine.sam.model import Embedding, Frame, SamModel
from fewshot.support import Template
from fewshot.volumes import SliceStack


@dataclass(frozen=True, eq=False)
class Learned:
    """One label.

    Attributes:
        target: what it looks like.
        slices: ``volume:slice`` on which it was learned.
        weights: float32 ``[3]`` of SAM's masks for PerSAM-F, else None.
        loss: of these weights.
    """

    target: Target
    slices: list[str]
    weights: np.ndarray | None = None
    loss: float | None = None


def learn_labels(
    sam: SamModel,
    templates: Sequence[Template],
    stacks: Sequence[SliceStack],
    labels: Sequence[str],
    *,
    count: int,
    fine_tuned: bool,
    progress: Progress,
) -> list[Learned]:
    """Encode the template slices and learn from them.

    Args:
        stacks: of the templates' volumes, for this model.
        count: slices for each label, at most.
        fine_tuned: PerSAM-F.
        progress: told the stage ``train`` over slices, then over labels.

    Raises:
        FewshotError: if no slice shows a label on image content.
    """
    places = {name: largest_slices(templates, stacks, name, count) for name in labels}
    wanted = list(dict.fromkeys(place for of in places.values() for place in of))
    encoded: dict[Place, Embedding] = {}
    for done, place in enumerate(wanted, start=1):
        encoded[place] = sam.encode(images_of(stacks[place.template], [place.index]))[0]
        progress("train", done, len(wanted))
    learned = []
    for name, of in places.items():
        shown = [
            Shown(
                encoded[place],
                frame_of(stacks[place.template]),
                stacks[place.template].slices(templates[place.template].labels)[place.index]
                == templates[place.template].names[name],
            )
            for place in of
        ]
        slices = [f"{templates[place.template].volume.name}:{place.index}" for place in of]
        target = _target(sam, shown, peaks=fine_tuned)
        if fine_tuned:
            weights, loss = _weights(sam, shown, target)
            learned.append(Learned(target, slices, weights, loss))
            progress("train", len(learned), len(labels), loss=loss)
        else:
            learned.append(Learned(target, slices))
    return learned


@dataclass(frozen=True, eq=False)
class Shown:
    """A template slice with its mask of one label, bool ``[rows, cols]``."""

    embedding: Embedding
    frame: Frame
    mask: np.ndarray


def _target(sam: SamModel, shown: Sequence[Shown], *, peaks: bool) -> Target:
    features = [features_of(of.embedding) for of in shown]
    inside = [
        patches_inside(of.mask, of.frame, sam.size, (each.shape[1], each.shape[2]))
        for of, each in zip(shown, features, strict=True)
    ]
    return learn(features, inside, peaks=peaks)


def _weights(sam: SamModel, shown: Sequence[Shown], target: Target) -> tuple[np.ndarray, float]:
    candidates = []
    for of in shown:
        alike = on_slice(similarity(features_of(of.embedding), target.direction), of.frame, sam.size)
        prompt = location_prior(alike, negative=False)
        candidates.append(sam.predict(of.embedding, [prompt], of.frame, multimask=True).logits[0])
    return learn_weights(candidates, [of.mask for of in shown])


def frame_of(stack: SliceStack) -> Frame:
    """How the slices of a stack lie in the model's image."""
    return Frame(stack.native, stack.content)


def images_of(stack: SliceStack, rows: Sequence[int]) -> np.ndarray:
    """Slices without the stack's own padding, which the model does its way, float32 ``[len(rows), H, W]``."""
    return stack.render(rows)[:, : stack.content[0], : stack.content[1]]
