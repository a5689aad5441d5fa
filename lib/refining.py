"""Refiners and Segment Anything models as one server process holds them: loaded at first use, then kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from copy import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fewshot.errors import FewshotError
from lib.files import stamp

if TYPE_CHECKING:
    from fewshot.features import FeatureBank
    from fewshot.refine import Refiner
    from fewshot.refine.sam.model import SamModel

AUTO = "auto"
KEPT = 2
"""Segment Anything models in memory: one for the slices, one that follows a structure from slice to slice."""


@dataclass(frozen=True)
class Refinement:
    """How a request wants a prediction to be refined.

    Attributes:
        name: a key of `fewshot.refine.REFINERS`.
        prompts: how a Segment Anything model is told where a label is.
    """

    name: str = "none"
    prompts: str = "random"


UNREFINED = Refinement()


class Refining:
    """Gives refiners and Segment Anything models; a weights file that was replaced is loaded again.

    Args:
        sam: the model that refines and answers clicks, a registered name or a file; `auto` takes the best one that
            is at hand.
    """

    def __init__(self, sam: str = AUTO) -> None:
        self._sam = sam
        self._mutex = threading.RLock()
        self._sams: OrderedDict[tuple[object, ...], SamModel] = OrderedDict()
        self._refiners: OrderedDict[tuple[object, ...], Refiner] = OrderedDict()

    def sam(self, name: str, device: str = AUTO) -> SamModel:
        """A Segment Anything model; the last two stay loaded.

        Raises:
            FewshotError: if it cannot be loaded there.
        """
        from fewshot.refine.sam import load_sam

        device = decided(device)
        key = (name, device, *stamp(Path(name)))
        with self._mutex:
            if key not in self._sams:
                while len(self._sams) >= KEPT:
                    self._sams.popitem(last=False)
                self._sams[key] = load_sam(name, device=device)
            self._sams.move_to_end(key)
            return self._sams[key]

    def sam_for_clicks(self, device: str = AUTO) -> SamModel | None:
        """What answers clicks; None where nothing is at hand, then the engine does without."""
        from fewshot.refine.sam.at_hand import choose_sam

        device = decided(device)
        name = choose_sam(quick=device == "cpu") if self._sam == AUTO else self._sam
        return None if name is None else self.sam(name, device)

    def refiner(self, wanted: Refinement, *, bank: FeatureBank, device: str = AUTO) -> Refiner | None:
        """A refiner as a request wants it; None for `none`.

        Raises:
            FewshotError: there is no such refiner or strategy, or its weights cannot be had.
        """
        from fewshot.refine import create_refiner
        from fewshot.refine.choice import decide

        device = decided(device)
        try:
            decision = decide(wanted.name, sam=self._sam, device=device)
        except FewshotError as error:
            raise FewshotError(str(error).replace("--sam", "--conf sam")) from error
        if decision is None:
            return None
        weights = decision.sam
        key = (decision, device, *(stamp(Path(weights)) if weights else ()))
        with self._mutex:
            if key not in self._refiners:
                try:
                    made = create_refiner(
                        wanted.name,
                        bank=bank,
                        sam=self._sam,
                        device=device,
                        load=lambda weights, **_: self.sam(weights, device),
                    )
                except FewshotError as error:
                    raise FewshotError(str(error).replace("--sam", "--conf sam")) from error
                assert made
                while len(self._refiners) >= KEPT:
                    self._refiners.popitem(last=False)
                self._refiners[key] = made
            self._refiners.move_to_end(key)
            return _prompted(self._refiners[key], wanted.prompts)


def decided(device: str) -> str:
    """The device, with `auto` decided: a GPU where there is one."""
    return device if device != AUTO else "cuda" if torch.cuda.is_available() else "cpu"


def _prompted(refiner: Refiner, prompts: str) -> Refiner:
    """The same refiner, with the same weights, that takes its prompts by another strategy."""
    from fewshot.refine.prompts import check_prompts
    from fewshot.settings import checked_options

    options = refiner.options
    now = {each.name: getattr(options, each.name) for each in fields(options)}
    if "prompts" not in now or now["prompts"] == prompts:
        return refiner
    check_prompts(prompts)
    other = copy(refiner)
    other.options = checked_options(f"refinement {refiner.name}", type(options), {**now, "prompts": prompts})
    return other
