"""One volume while SAM 2 follows its components, and what it has found so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewshot.refine.acceptance import attached, choose, judge
from fewshot.refine.base import Region
from fewshot.refine.encoding import Embeddings
from fewshot.refine.memory import Batches
from fewshot.refine.merging import Taken, merge
from fewshot.refine.prompt import Prompt
from fewshot.refine.prompts import prompts_for
from fewshot.refine.sam.model import Masks
from fewshot.refine.sam2.model import Sam2Model
from fewshot.refine.sam2.objects import Object
from fewshot.refine.sam2.tracking import Reference, Tracked
from fewshot.refine.sam_refiner import says_little
from fewshot.volumes.windows import VISIBLE, normalise

if TYPE_CHECKING:
    from fewshot.refine.sam2.refiner import Sam2Options

ABSENT = "sees no object"


@dataclass(frozen=True, eq=False)
class _Piece:
    """A mask that was taken, cut out: whole slices of every component would not fit into memory."""

    label: int
    box: tuple[slice, slice]
    localised: np.ndarray
    mask: np.ndarray
    logits: np.ndarray

    def whole(self, shape: tuple[int, ...]) -> Taken:
        localised, mask = np.zeros(shape, bool), np.zeros(shape, bool)
        logits = np.full(shape, -np.inf, np.float32)
        for part, cut in ((localised, self.localised), (mask, self.mask), (logits, self.logits)):
            part[self.box] = cut
        return Taken(self.label, localised, mask, logits)


class Following:
    """Follows components through one volume.

    Args:
        region: what was localised.
        sam: the model.
        embeddings: of the region's slices.
        options: of the refiner.
        seed: same seed, same points.
        references: slices of templates by label; labels without any begin with a prompt in one slice.

    Attributes:
        visited: slices that were looked at.
        masks: how many there were to be judged.
        refused: why some were not taken.
        notes: what the reader of the result must know.
    """

    def __init__(
        self,
        region: Region,
        sam: Sam2Model,
        embeddings: Embeddings,
        options: Sam2Options,
        seed: int,
        references: Mapping[int, Sequence[Reference]],
    ) -> None:
        self._region, self._sam, self._embeddings = region, sam, embeddings
        self._options, self._seed, self._references = options, seed, references
        self._native = region.stack.slices(region.stack.volume.array)
        self._pieces: dict[int, list[_Piece]] = defaultdict(list)
        self.visited: set[int] = set()
        self.masks = 0
        self.refused: Counter[str] = Counter()
        self.notes = embeddings.notes

    def follow(self, each: Object) -> Iterator[None]:
        """Follow one component, slice by slice."""
        start = each.most_certain(self._region)
        known = self._references.get(each.label, ())
        memory = {} if known else {start: self._begin(each, start)}
        found: dict[int, np.ndarray | None] = dict(memory)
        margin = self._options.margin
        first = max(0, each.extent.start - margin)
        last = min(len(self._region.classes), each.extent.stop + margin)
        for tracked in self._sam.propagate(
            self._embeddings.of_slice,
            range(first, last),
            memory,
            self._embeddings.frame,
            start=start,
            references=known,
            patience=self._options.patience,
            notes=self.notes,
        ):
            index = tracked.index
            self.visited.add(index)
            if index not in memory:
                inward = index + (1 if index < start else -1)
                found[index] = self._judge(each, tracked, found.get(inward))
            yield
        for _ in set(each.extent) - set(found):
            self._count(ABSENT)

    def merged(self) -> np.ndarray:
        """The region's classes with the masks that were taken."""
        classes = self._region.classes.copy()
        for index, pieces in self._pieces.items():
            before = self._region.classes[index]
            classes[index] = merge(
                before,
                [piece.whole(before.shape) for piece in pieces],
                lambda label, at=index: self._region.probability(at, label),  # type: ignore[misc]
            )
        return classes

    def _begin(self, each: Object, index: int) -> np.ndarray:
        """The mask of a prompt in one slice; the component itself if that is not taken."""
        part = each.mask(index)
        assert part is not None
        prompt = prompts_for(
            self._options.prompts,
            part,
            self._region.probability(index, each.label),
            count=self._options.points,
            rng=np.random.default_rng([self._seed, index, each.label, each.number]),
            label=self._region.classes[index] == each.label,
        )

        def ask(prompts: Sequence[Prompt]) -> Masks:
            embedding = self._embeddings.of_slice(index)
            frame = self._embeddings.frame
            return self._sam.predict(embedding, prompts, frame, multimask=says_little(prompts[0]))

        _, answer = next(Batches(self._sam, 1, self.notes).run([prompt], ask))
        masks = np.stack([attached(candidate > 0, part) for candidate in answer.logits[0]])
        best, why_not = choose(masks, answer.quality[0], part, self._options.rules, body=self._body(index))
        self._count(why_not)
        if why_not is not None:
            return part
        self._take(each, index, masks[best], answer.logits[0][best])
        return masks[best]

    def _judge(self, each: Object, tracked: Tracked, neighbour: np.ndarray | None) -> np.ndarray | None:
        """The object in a slice: SAM 2's mask if it is taken, else what was localised, None where nothing was.

        Beyond the ends of the component a mask has to go on from the one beside it.
        """
        index = tracked.index
        part = each.mask(index)
        expected = neighbour if part is None else part
        if expected is None:
            return None
        mask = attached(tracked.logits > 0, expected)
        why_not: str | None = ABSENT
        if tracked.presence > 0:
            why_not = judge(mask, expected, tracked.quality, self._options.rules, body=self._body(index))
        if why_not is None:
            self._take(each, index, mask, tracked.logits)
        if part is not None or why_not is None:  # not finding more of it beyond its ends is no failure
            self._count(why_not)
        return mask if why_not is None else part

    def _take(self, each: Object, index: int, mask: np.ndarray, logits: np.ndarray) -> None:
        part = each.mask(index)
        localised = np.zeros_like(mask) if part is None else part
        rows, cols = ((mask | localised).any(axis=axis).nonzero()[0] for axis in (1, 0))
        box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        cuts = (np.array(whole[box]) for whole in (localised, mask, logits))
        self._pieces[index].append(_Piece(each.label, box, *cuts))

    def _count(self, why_not: str | None) -> None:
        self.masks += 1
        if why_not is not None:
            self.refused[why_not] += 1

    def _body(self, index: int) -> int:
        """Pixels of the body in a slice."""
        return int((normalise(self._native[index], self._region.stack.limits) > VISIBLE).sum())
