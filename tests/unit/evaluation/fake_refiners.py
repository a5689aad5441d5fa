"""Made-up refiners: cheap, and each with one peculiarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fewshot.progress import Progress, silent
from fewshot.refine import Refined, Refiner, Region
from fewshot.refine.choice import Entry
from fewshot.support import Template


class Eraser(Refiner):
    """Leaves nothing."""

    name: ClassVar[str] = "eraser"
    description: ClassVar[str] = "erases"

    @dataclass(frozen=True)
    class Options:
        pass

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        progress("refine", 1, 2)
        return Refined(np.zeros_like(region.classes))


class Painter(Refiner):
    """Moves what was found along the rows, by a number of pixels or as the prompts say; stands for SAM."""

    name: ClassVar[str] = "sam"
    description: ClassVar[str] = "moves"
    weights: ClassVar[str] = "first"
    log: ClassVar[list[Any]] = []
    """Everything that was created, remembered and refined."""
    planes: ClassVar[list[tuple[str, str]]] = []

    @dataclass(frozen=True)
    class Options:
        prompts: str = "random"
        points: int = 1

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.log.append("created")

    def identity(self) -> Mapping[str, Any]:
        return {"sam": "painted", "digest": self.weights}

    def remember(self, templates: Sequence[Template]) -> None:
        self.log.append((self.options.prompts, [template.volume.name for template in templates]))

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        self.log.append((self.options.prompts, region.stack.volume.name, seed))
        self.planes.append((region.stack.spec.plane, region.stack.spec.window))
        progress("refine", 1, 2)
        steps = {"random": 0, "box": 2, "kmeans": 1}[self.options.prompts]
        shown = int(region.classes.any(axis=(1, 2)).sum())
        return Refined(
            np.roll(region.classes, steps, axis=1),
            None,
            {**self.identity(), "masks": shown, "taken": shown - steps, "encoded": 0},
            ["random weights", f"{steps} of {shown} masks were not taken"],
        )


class Picky(Eraser):
    """Fails on one case, the way that a library does; and where told to, when it sees the templates."""

    name: ClassVar[str] = "picky"
    forgetful: ClassVar[bool] = False

    def remember(self, templates: Sequence[Template]) -> None:
        if self.forgetful:
            raise RuntimeError("CUDA out of memory")

    def refine(self, region: Region, *, seed: int = 0, progress: Progress = silent) -> Refined:
        if region.stack.volume.name == "cid":
            raise ValueError("no edges")
        return super().refine(region, seed=seed, progress=progress)


REFINERS = {
    name: Entry(f"tests.unit.evaluation.fake_refiners:{kind}", "made up")
    for name, kind in {"eraser": "Eraser", "sam": "Painter", "picky": "Picky"}.items()
}
