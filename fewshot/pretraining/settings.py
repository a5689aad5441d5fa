"""What a pretraining can be told; every value is checked before anything is computed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any

from fewshot.errors import FewshotError


def bounded(default: float, *, least: float, most: float = float("inf")) -> Any:
    """A number with the range in which it makes sense."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class PretrainSettings:
    """DINOv2's recipe (Oquab et al. 2023) with a dense term, in sizes for one small machine.

    Attributes:
        minutes: training ends when it has computed so long (the schedules follow the clock); 0 for no limit.
        images: training ends after so many images; 0 for no limit.
        batch: images in one optimiser step, all processes together.
        accumulate: parts in which a process computes its share of a batch (less memory, same result but for the
            terms that compare images with each other).
        learning_rate: AdamW's highest; warmed up, then a cosine to a hundredth.
        weight_decay: at the start; grows to five times that (DINOv2).
        warmup: share of the training in which the learning rate rises.
        teacher_momentum: of the EMA teacher at the start; grows to 0.9995.
        global_pixels: side of the two large crops.
        local_pixels: side of the small crops.
        local_crops: how many small crops an image gives.
        dino: weight of the class-token loss.
        ibot: weight of the masked-patch loss.
        koleo: weight of the entropy regulariser.
        dense: weight of the cross-view loss of corresponding places.
        prototypes: outputs of the DINO and iBOT heads.
        places: corresponding places compared per image in the dense loss.
        temperature: of the dense loss.
        neighbours: chance that the second crop comes from another slice nearby.
        size: pixels of a slice's longer side, before cropping.
        slices: at most so many slices of one volume are kept.
        seed: of slices, crops and initial weights.
        save_seconds: between two checkpoints.
        picture_seconds: between two pictures of the features.
    """

    minutes: float = bounded(0.0, least=0)
    images: int = bounded(200_000, least=0)
    batch: int = bounded(32, least=2)
    accumulate: int = bounded(1, least=1)
    learning_rate: float = bounded(1e-3, least=1e-8, most=1)
    weight_decay: float = bounded(0.04, least=0, most=1)
    warmup: float = bounded(0.05, least=0, most=0.9)
    teacher_momentum: float = bounded(0.99, least=0, most=1)
    global_pixels: int = bounded(112, least=16)
    local_pixels: int = bounded(48, least=16)
    local_crops: int = bounded(4, least=0)
    dino: float = bounded(1.0, least=0)
    ibot: float = bounded(1.0, least=0)
    koleo: float = bounded(0.1, least=0)
    dense: float = bounded(1.0, least=0)
    prototypes: int = bounded(256, least=2)
    places: int = bounded(96, least=4)
    temperature: float = bounded(0.1, least=1e-3)
    neighbours: float = bounded(0.5, least=0, most=1)
    size: int = bounded(256, least=32, most=2048)
    slices: int = bounded(200, least=1)
    seed: int = bounded(0, least=0)
    save_seconds: float = bounded(120.0, least=0)
    picture_seconds: float = bounded(600.0, least=0)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            wanted = int if entry.type == "int" else float
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not number or wanted(value) != value:
                raise FewshotError(
                    f"The setting {entry.name}={value!r} does not fit; give a "
                    f"{'whole ' if wanted is int else ''}number."
                )
            object.__setattr__(self, entry.name, wanted(value))
            least, most = entry.metadata["least"], entry.metadata["most"]
            if not least <= value <= most:
                possible = f"{least:g} to {most:g}" if isfinite(most) else f"{least:g} or more"
                raise FewshotError(f"The setting {entry.name}={value} is out of range; give {possible}.")
        if not self.minutes and not self.images:
            raise FewshotError("The training would never end; give minutes or images.")
        if self.batch < 2 * self.accumulate:
            raise FewshotError(
                f"A batch of {self.batch} images has no {self.accumulate} parts of at least two; give a larger batch "
                f"or accumulate={self.batch // 2}."
            )
        if not (self.dino or self.ibot or self.dense):
            raise FewshotError("All losses have the weight 0; give dino, ibot or dense some.")

    @property
    def teacher_needed(self) -> bool:
        """Whether any loss compares with the teacher's output; else the teacher only averages the weights."""
        return bool(self.dino or self.ibot)

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def create(cls, values: dict[str, Any]) -> PretrainSettings:
        """Settings from names and values.

        Raises:
            FewshotError: A name is unknown or a value does not fit.
        """
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise FewshotError(f"There is no setting {', '.join(unknown)}; there are {', '.join(known)}.")
        return cls(**values)
