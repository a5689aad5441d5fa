"""What every refiner does: a localised region in, a better one out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fewshot.progress import Progress, silent
from fewshot.volumes import SliceStack

if TYPE_CHECKING:
    from fewshot.support import Template


@dataclass(frozen=True, eq=False)
class Region:
    """What was localised in a volume, slice by slice.

    Attributes:
        stack: the volume's slices in the plane of the prediction; a refiner takes from it the native slices
            (``stack.slices(stack.volume.array)``), plane, window and limits.
        names: the labels, in the order of their classes.
        classes: uint16 ``[S, rows, cols]``, 0 background, k the k-th label.
        probabilities: float16 ``[S, rows, cols, L + 1]``, or None where they are not known.
    """

    stack: SliceStack
    names: Sequence[str]
    classes: np.ndarray
    probabilities: np.ndarray | None = None

    def probability(self, index: int, label: int) -> np.ndarray:
        """Probability of the ``label``-th label (from 1) in a slice, float32 ``[rows, cols]``; 0 and 1 if unknown."""
        if self.probabilities is None:
            return (self.classes[index] == label).astype(np.float32)
        return self.probabilities[index, ..., label].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Refined:
    """A refiner's answer.

    Attributes:
        classes: uint16 ``[S, rows, cols]``, as in `Region`.
        probabilities: float16 ``[S, rows, cols, L + 1]`` if the refiner has probabilities of its own.
        provenance: what the result depends on and what was done: weights, prompts, slices encoded, masks taken.
        notes: what the reader must know: masks that were not taken, less memory than needed.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Refiner(ABC):
    """Makes a localised region follow the structure's edges.

    Args:
        options: its settings, one of its ``Options``.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    Options: ClassVar[type[Any]]
    why: str | None = None
    """Why it was chosen, where nobody named it."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def identity(self) -> Mapping[str, Any]:
        """What its results depend on besides its options: name and digest of weights."""
        return {}

    def remember(self, templates: Sequence[Template]) -> None:  # noqa: B027 - most have no memory
        """Be told the templates, for refiners that keep them in memory (SAM 2)."""

    @abstractmethod
    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        """Refine all labels of a volume.

        Args:
            region: what was localised; slices without any label are left alone.
            seed: same seed, same result.
            progress: told the stage ``refine`` over slices.
        """
