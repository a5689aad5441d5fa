"""Refiners by name, and which one is used where none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.features.device import choose_device
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
"""``auto`` is SAM where weights are at hand that this machine can use quickly, else the walker."""


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
    decided = decide(name, sam=sam, device=device)
    if decided is None:
        return None
    entry = REFINERS[decided.name]
    assert entry
    checked = checked_options(f"refinement {decided.name}", _kind(entry).Options, dict(options or {}))
    if entry.weights is None or decided.sam is None:
        refiner = _kind(entry)(checked)
    else:
        from fewshot.refine.sam import load_sam

        model = (load or load_sam)(decided.sam, device=device, progress=progress)
        if decided.name == "sam2" and model.kind != "sam2":
            raise FewshotError(
                f"Refinement sam2 needs a SAM 2 model, and {decided.sam} is none: give another --sam, or refine with "
                "sam."
            )
        refiner = _kind(entry)(checked, sam=model, bank=bank)
    refiner.why = decided.why
    return refiner


@dataclass(frozen=True)
class Decision:
    """What ``auto`` stands for.

    Attributes:
        name: of the refiner.
        sam: the model that it needs, a name or file; None where it needs none.
        why: the reason, where nobody named the refiner.
    """

    name: str
    sam: str | None
    why: str | None = None


def decide(name: str, *, sam: str = AUTO, device: str = "auto") -> Decision | None:
    """Which refiner and which weights a request means; nothing is loaded. None for ``none``.

    Args:
        name: a key of ``REFINERS``.
        sam: as for `create_refiner`.
        device: as for `create_refiner`.

    Raises:
        FewshotError: an unknown name, or no weights for what was named.
    """
    if name not in REFINERS:
        raise FewshotError(f"There is no refinement {name}; choose {', '.join(REFINERS)}.")
    if name == UNREFINED:
        return None
    from fewshot.refine.sam.at_hand import choose_sam

    if name == AUTO:
        if sam != AUTO:
            return Decision("sam", sam, f"SAM weights {sam} were named")
        found = choose_sam(quick=choose_device(device).type == "cpu")
        if found is None:
            return Decision("walker", None, "no SAM weights for this machine are at hand")
        return Decision("sam", found, f"SAM weights {found} are at hand")
    entry = REFINERS[name]
    assert entry
    if entry.weights is None:
        return Decision(name, None)
    weights = sam if sam != AUTO else choose_sam(entry.weights)
    if weights is None:
        raise FewshotError(
            f"Refinement {name} needs weights, and none are on this machine: give --sam NAME (see `fewshot info`) "
            "or FILE, or refine with walker."
        )
    return Decision(name, weights)


def options_of_refiner(name: str) -> type[Any] | None:
    """The `Options` of a refiner; None where it has none."""
    entry = REFINERS.get(name)
    return _kind(entry).Options if entry else None


def _kind(entry: Entry) -> Any:
    module, _, kind = entry.place.partition(":")
    return getattr(import_module(module), kind)
