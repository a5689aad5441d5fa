"""Refinement by SAM 2: a component's most certain slice, or the templates, are remembered while it is followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.progress import Progress, silent
from fewshot.refine.base import Refined, Refiner, Region
from fewshot.refine.encoding import Embeddings
from fewshot.refine.prompts import check_prompts
from fewshot.refine.sam2.following import Following
from fewshot.refine.sam2.model import Sam2Model
from fewshot.refine.sam2.objects import objects_of
from fewshot.refine.sam2.references import references
from fewshot.refine.sam2.tracking import Reference
from fewshot.refine.sam_refiner import SamOptions
from fewshot.volumes import SliceStack

if TYPE_CHECKING:
    from fewshot.support import Template

SLICE, TEMPLATE = "slice", "template"


@dataclass(frozen=True)
class Sam2Options(SamOptions):
    """How SAM 2 is prompted, what it remembers, and when its mask is taken (see `Rules`).

    Attributes:
        memory: ``slice``: SAM 2's own mask in the component's most certain slice; ``template``: the templates' masks.
        references: most slices of templates for one label.
        smallest: voxels; smaller components stay as they are.
        margin: slices beyond either end of a component that are looked at.
        patience: following ends after so many slices in a row without the object.
    """

    memory: str = SLICE
    references: int = 4
    smallest: int = 20
    margin: int = 3
    patience: int = 2


@dataclass(frozen=True, eq=False)
class _Remembered:
    """What the templates show: slices by label, where they are from, how many were encoded."""

    slices: dict[int, list[Reference]]
    sources: list[str]
    encoded: int
    notes: list[str]


class Sam2Refiner(Refiner):
    """SAM 2's masks, carried from slice to slice, in place of localised components.

    Args:
        options: see `Sam2Options`.
        sam: a SAM 2 model.
        bank: keeps the embeddings of slices.

    Raises:
        FewshotError: an unknown prompt strategy or kind of memory.
    """

    name: ClassVar[str] = "sam2"
    description: ClassVar[str] = "SAM 2, from slice to slice by memory"
    Options: ClassVar[type[Any]] = Sam2Options

    def __init__(self, options: Sam2Options, *, sam: Sam2Model, bank: FeatureBank) -> None:
        super().__init__(options)
        check_prompts(options.prompts)
        if options.memory not in (SLICE, TEMPLATE):
            raise FewshotError(
                f"Option memory of refinement sam2 is {options.memory!r}; give {SLICE} or {TEMPLATE}."
            )
        self.sam, self.bank = sam, bank
        self._templates: list[Template] = []

    def identity(self) -> Mapping[str, Any]:
        return {"sam": self.sam.name, "digest": self.sam.digest}

    def remember(self, templates: Sequence[Template]) -> None:
        """Be told the templates; looked at with ``memory`` set to ``template`` only."""
        self._templates = list(templates)

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        remembered = self._look(region) if self.options.memory == TEMPLATE else _Remembered({}, [], 0, [])
        embeddings = Embeddings(region.stack, self.sam, self.bank)
        following = Following(region, self.sam, embeddings, self.options, seed, remembered.slices)
        shown = int(region.classes.any(axis=(1, 2)).sum())
        objects = 0
        progress("refine", 0, shown)
        for each in objects_of(region.classes, self.options.smallest):
            for _ in following.follow(each):
                progress("refine", min(len(following.visited), shown), shown)
            objects += 1
        progress("refine", shown, shown)
        refused = following.refused.total()
        provenance = {
            **self.identity(),
            "memory": TEMPLATE if remembered.sources else SLICE,
            **({"references": remembered.sources} if remembered.sources else {}),
            "prompts": self.options.prompts,
            "points": self.options.points,
            "objects": objects,
            "slices": len(following.visited),
            "encoded": embeddings.encoded + remembered.encoded,
            "masks": following.masks,
            "taken": following.masks - refused,
        }
        notes = [*remembered.notes, *following.notes]
        if self.sam.note is not None:
            notes.insert(0, self.sam.note)
        if refused:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in following.refused.most_common())
            notes.append(f"SAM 2's mask was not taken for {refused} of {following.masks} regions ({reasons})")
        return Refined(following.merged(), None, provenance, list(dict.fromkeys(notes)))

    def _look(self, region: Region) -> _Remembered:
        """Look at the templates' slices of all labels that were localised."""
        seen: dict[str, Embeddings] = {}

        def embeddings(stack: SliceStack) -> Embeddings:
            return seen.setdefault(stack.digest, Embeddings(stack, self.sam, self.bank))

        found = _Remembered({}, [], 0, [])
        for label in np.unique(region.classes[region.classes > 0]).tolist():
            name = region.names[label - 1]
            given = references(self._templates, name, self.options.references, region.stack.spec, embeddings)
            found.slices[label] = [reference for _, reference in given]
            found.sources.extend(f"{name}: {source}" for source, _ in given)
            if not given:
                found.notes.append(f"no template shows {name}: SAM 2 began with its own mask of one slice")
        for each in seen.values():
            found.notes.extend(each.notes)
        encoded = sum(each.encoded for each in seen.values())
        return _Remembered(found.slices, found.sources, encoded, found.notes)
