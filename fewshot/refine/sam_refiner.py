"""Refinement by Segment Anything, slice by slice: every localised component prompts for one mask (paper, section 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import cc3d
import numpy as np

from fewshot.features import FeatureBank
from fewshot.progress import Progress, silent
from fewshot.refine.acceptance import Rules, attached, body_pixels, choose
from fewshot.refine.base import Refined, Refiner, Region
from fewshot.refine.encoding import Embeddings
from fewshot.refine.memory import Batches
from fewshot.refine.merging import Taken, merge
from fewshot.refine.prompt import Prompt
from fewshot.refine.prompts import check_prompts, prompts_for
from fewshot.refine.sam.model import Masks, SamModel
from fewshot.settings import number
from fewshot.volumes.windows import VISIBLE, normalise

PROMPTS_AT_ONCE = 64
"""A slice has rarely more components; each makes a few hundred megabytes at the decoder's largest layer."""


@dataclass(frozen=True)
class SamOptions:
    """How SAM is prompted, and when its mask is taken (see `Rules`).

    Attributes:
        prompts: a key of ``PROMPTS``.
        points: of each component.
        smallest: pixels; smaller components stay as they are.
    """

    prompts: str = "random"
    points: int = 10
    smallest: int = 5
    quality: float = number(Rules.quality, above=-1.0, below=1.0)
    agreement: float = number(Rules.agreement, above=0.0, below=1.0)
    growth: float = number(Rules.growth, above=1.0, below=1e6)
    body: float = number(Rules.body, above=0.0, below=1.0)

    @property
    def rules(self) -> Rules:
        """When a mask is taken."""
        return Rules(self.quality, self.agreement, self.growth, self.body)


@dataclass(frozen=True, eq=False)
class Part:
    """A component of a label in a slice.

    Attributes:
        label: from 1.
        number: from 0 among those of its label.
        mask: bool ``[rows, cols]``.
    """

    label: int
    number: int
    mask: np.ndarray


class SamRefiner(Refiner):
    """SAM's masks in place of localised components.

    Args:
        options: see `SamOptions`.
        sam: any model of the architecture.
        bank: keeps the embeddings of slices.

    Raises:
        FewshotError: an unknown prompt strategy.
    """

    name: ClassVar[str] = "sam"
    description: ClassVar[str] = "Segment Anything, slice by slice"
    Options: ClassVar[type[Any]] = SamOptions

    def __init__(self, options: SamOptions, *, sam: SamModel, bank: FeatureBank) -> None:
        super().__init__(options)
        check_prompts(options.prompts)
        self.sam, self.bank = sam, bank

    def identity(self) -> Mapping[str, Any]:
        return {"sam": self.sam.name, "digest": self.sam.digest}

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        embeddings = Embeddings(region.stack, self.sam, self.bank)
        smallest = self.options.smallest
        shown = [index for index, classes in enumerate(region.classes) if parts_of(classes, smallest)]
        embeddings.prepare(shown, progress)
        batches = Batches(self.sam, PROMPTS_AT_ONCE, embeddings.notes)
        classes = region.classes.copy()
        verdicts: list[str | None] = []
        progress("refine", 0, len(shown))
        for done, index in enumerate(shown, start=1):
            classes[index], of_slice = self._slice(region, index, embeddings, batches, seed)
            verdicts += of_slice
            progress("refine", done, len(shown))
        notes = [] if self.sam.note is None else [self.sam.note]
        notes += [*embeddings.notes, *_told(verdicts)]
        provenance = {
            **self.identity(),
            "prompts": self.options.prompts,
            "points": self.options.points,
            "slices": len(shown),
            "encoded": embeddings.encoded,
            "masks": len(verdicts),
            "taken": verdicts.count(None),
        }
        return Refined(classes, None, provenance, notes)

    def _slice(
        self, region: Region, index: int, embeddings: Embeddings, batches: Batches, seed: int
    ) -> tuple[np.ndarray, list[str | None]]:
        """New classes of a slice, and for each component why its mask was not taken, None if it was."""
        localised = region.classes[index]
        probability = cache(partial(region.probability, index))
        parts = parts_of(localised, self.options.smallest)
        prompts = [
            prompts_for(
                self.options.prompts,
                part.mask,
                probability(part.label),
                count=self.options.points,
                # chance depends on which component it is, not on what was done before
                rng=np.random.default_rng([seed, index, part.label, part.number]),
                label=localised == part.label,
            )
            for part in parts
        ]
        native = region.stack.slices(region.stack.volume.array)[index]
        body = body_pixels(normalise(native, region.stack.limits) > VISIBLE)
        taken: list[Taken] = []
        verdicts: list[str | None] = []
        answers = self._ask(batches, embeddings, index, prompts)
        for part, (logits, quality) in zip(parts, answers, strict=True):
            masks = np.stack([attached(candidate > 0, part.mask) for candidate in logits])
            best, why_not = choose(masks, quality, part.mask, self.options.rules, body=body)
            if why_not is None:
                taken.append(Taken(part.label, part.mask, masks[best], logits[best]))
            verdicts.append(why_not)
        return merge(localised, taken, probability), verdicts

    def _ask(
        self, batches: Batches, embeddings: Embeddings, index: int, prompts: Sequence[Prompt]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Candidates for each prompt: logits ``[M, rows, cols]`` and qualities ``[M]``."""
        embedding = embeddings.of_slice(index)
        answers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for several in (False, True):

            def predict(chosen: Sequence[int], several: bool = several) -> Masks:
                asked = [prompts[at] for at in chosen]
                return self.sam.predict(embedding, asked, embeddings.frame, multimask=several)

            group = [at for at, prompt in enumerate(prompts) if says_little(prompt) == several]
            for chosen, masks in batches.run(group, predict):
                answers.update(zip(chosen, zip(masks.logits, masks.quality, strict=True), strict=True))
        return [answers[at] for at in range(len(prompts))]


def parts_of(classes: np.ndarray, smallest: int = 1) -> list[Part]:
    """Components of all labels in a slice, those of fewer pixels left out.

    Args:
        classes: uint16 ``[rows, cols]``, 0 background, k the k-th label.
        smallest: least pixels.
    """
    if not classes.any():
        return []
    components = cc3d.connected_components(np.ascontiguousarray(classes), connectivity=8)
    found, first, sizes = np.unique(components, return_index=True, return_counts=True)
    seen: Counter[int] = Counter()
    parts = []
    for component, at, size in sorted(zip(found, first, sizes, strict=True), key=lambda each: each[1]):
        label = int(classes.flat[at])
        if label == 0:
            continue
        if size >= smallest:
            parts.append(Part(label, seen[label], components == component))
        seen[label] += 1
    return parts


def says_little(prompt: Prompt) -> bool:
    """Whether a prompt is a single point, which may mean a part, the whole or what surrounds it."""
    return len(prompt.points) == 1 and prompt.box is None and prompt.mask is None


def _told(verdicts: Sequence[str | None]) -> list[str]:
    """What the reader must know about masks that were not taken."""
    refused = Counter(why for why in verdicts if why is not None)
    if not refused:
        return []
    reasons = ", ".join(f"{why}: {count}" for why, count in refused.most_common())
    return [f"SAM's mask was not taken for {refused.total()} of {len(verdicts)} regions ({reasons})"]
