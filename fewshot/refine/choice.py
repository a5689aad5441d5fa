"""Refiners by name, and which one is used where none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.progress import Progress
from fewshot.refine.base import Refiner
from fewshot.settings import checked_options

if TYPE_CHECKING:
    from fewshot.refine.sam.model import SamModel

UNREFINED = "none"
AUTO = "auto"


@dataclass(frozen=True)
class Entry:
    """A refiner that can be asked for by name.

    Attributes:
        place: ``module:Class``, imported when it is used.
        weights: the kind of `SamModel` that it needs, or None.
    """

    place: str
    description: str
    weights: str | None = None


REFINERS: dict[str, Entry | None] = {
    UNREFINED: None,
    AUTO: None,
    "walker": Entry("fewshot.refine.walker:WalkerRefiner", "random walker; needs no weights"),
    "sam": Entry("fewshot.refine.sam_refiner:SamRefiner", "Segment Anything, slice by slice", "sam"),
    "sam2": Entry("fewshot.refine.sam2.refiner:Sam2Refiner", "SAM 2, from slice to slice by memory", "sam2"),
}
"""``auto`` is SAM where its weights are at hand, else the walker."""


def create_refiner(
    name: str,
    *,
    bank: FeatureBank,
    sam: str = AUTO,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    load: Callable[..., SamModel] | None = None,
    progress: Progress | None = None,
) -> Refiner | None:
    """A refiner, ready to use; None for ``none``.

    Args:
        name: a key of ``REFINERS``.
        bank: where embeddings of slices are kept.
        sam: which Segment Anything model, a registered name or a checkpoint file; ``auto`` takes one that is at hand.
        device: ``auto``, ``cpu`` or ``cuda``.
        options: the refiner's settings that differ from its defaults.
        load: loads a model by name as ``load_sam`` does, for callers that keep loaded ones.
        progress: told of a download.

    Raises:
        FewshotError: an unknown name or option, or weights that cannot be had.
    """
    if name not in REFINERS:
        raise FewshotError(f"There is no refinement {name}; choose {', '.join(REFINERS)}.")
    if name == UNREFINED:
        return None
    from fewshot.refine.sam import load_sam
    from fewshot.refine.sam.at_hand import choose_sam

    load = load or load_sam

    why = None
    if name == AUTO:
        chosen = sam if sam != AUTO else choose_sam(None)
        name = "walker" if chosen is None else "sam"
        why = "no SAM weights are at hand" if chosen is None else f"SAM weights {chosen} are at hand"
    entry = REFINERS[name]
    assert entry
    checked = checked_options(f"refinement {name}", _kind(entry).Options, dict(options or {}))
    if entry.weights is None:
        refiner = _kind(entry)(checked)
    else:
        weights = sam if sam != AUTO else choose_sam(entry.weights)
        if weights is None:
            raise FewshotError(
                f"Refinement {name} needs weights, and none are on this machine: give --sam NAME (see `fewshot info`) "
                "or FILE, or refine with walker."
            )
        model = load(weights, device=device, progress=progress)
        if name == "sam2" and model.kind != "sam2":
            raise FewshotError(
                f"Refinement sam2 needs a SAM 2 model, and {weights} is none: give another --sam, or refine with sam."
            )
        refiner = _kind(entry)(checked, sam=model, bank=bank)
    refiner.why = why
    return refiner


def options_of_refiner(name: str) -> type[Any] | None:
    """The `Options` of a refiner; None where it has none."""
    entry = REFINERS.get(name)
    return _kind(entry).Options if entry else None


def _kind(entry: Entry) -> Any:
    module, _, kind = entry.place.partition(":")
    return getattr(import_module(module), kind)
