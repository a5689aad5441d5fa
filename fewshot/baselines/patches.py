"""Patches of template volumes for training a network: drawn with balance, augmented by MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.baselines.common import UNKNOWN

FOREGROUND_SHARE = 2 / 3
"""Of the patches are centred on a labelled voxel, each label as often; the others on any known voxel."""

SURPLUS = 1.25
"""A patch is cut out so much larger, so that rotating it shows few voxels from beyond its edge."""


@dataclass(frozen=True, eq=False)
class Study:
    """A template as the network sees it.

    Attributes:
        image: float32 ``[1, *axes]``; two axes ``[1, S, rows, cols]`` come slice by slice.
        classes: int16 ``[*axes]``, ``UNKNOWN`` where nothing is known.
        undrawn: bool ``[L + 1]``: labels that nobody looked for here.
    """

    image: np.ndarray
    classes: np.ndarray
    undrawn: np.ndarray


class PatchSource:
    """Draws augmented patches; the same seed draws the same ones.

    Args:
        studies: the templates, all labels of which are drawn somewhere.
        patch: its shape, three axes; a single slice has 1 as the first.
        seed: of places and augmentation.
    """

    def __init__(self, studies: Sequence[Study], patch: tuple[int, int, int], *, seed: int) -> None:
        self.studies = studies
        self.patch = patch
        self.flat = patch[0] == 1
        self.generator = np.random.default_rng(seed)
        self.augment = augmentation(patch[1:] if self.flat else patch, seed)
        self.places = [
            {int(k): np.flatnonzero(study.classes == k) for k in np.unique(study.classes) if k > 0}
            for study in studies
        ]
        self.known = [np.flatnonzero(study.classes != UNKNOWN) for study in studies]
        self.owners = {
            k: [index for index, places in enumerate(self.places) if k in places]
            for k in sorted({k for places in self.places for k in places})
        }

    def batch(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images float32 ``[B, 1, *patch]``, classes int64 ``[B, *patch]``, undrawn bool ``[B, L + 1]``."""
        items = [self._draw() for _ in range(size)]
        images, classes, undrawn = (torch.stack(part) for part in zip(*items, strict=True))
        return images, classes, undrawn

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.generator.random() < FOREGROUND_SHARE:
            label = int(self.generator.choice(list(self.owners)))
            index = int(self.generator.choice(self.owners[label]))
            places = self.places[index][label]
        else:
            index = int(self.generator.integers(len(self.studies)))
            places = self.known[index]
        study = self.studies[index]
        centre = np.unravel_index(int(self.generator.choice(places)), study.classes.shape)
        image, classes = self._cut(study, [int(place) for place in centre])
        item = self.augment({"image": image, "classes": classes})
        target = item["classes"][0].round().long() - 1  # 0 is what lies beyond the volume
        return item["image"].float(), target, torch.from_numpy(study.undrawn)

    def _cut(self, study: Study, centre: list[int]) -> tuple[Tensor, Tensor]:
        """A larger patch around a place, moved at random; classes are one higher, 0 is unknown."""
        wide = [1 if side == 1 else int(np.ceil(side * SURPLUS)) for side in self.patch]
        starts = [
            place - side // 2 + (int(self.generator.integers(-(side // 4), side // 4 + 1)) if side > 1 else 0)
            for place, side in zip(centre, wide, strict=True)
        ]
        # inside the volume where it is large enough, else around it
        starts = [
            min(max(start, 0), length - side) if length >= side else (length - side) // 2
            for start, side, length in zip(starts, wide, study.classes.shape, strict=True)
        ]
        box, pads = [], []
        for start, side, length in zip(starts, wide, study.classes.shape, strict=True):
            box.append(slice(max(start, 0), min(start + side, length)))
            pads.append((max(-start, 0), max(start + side - length, 0)))
        image = np.pad(study.image[0][tuple(box)], pads, mode="edge")
        classes = np.pad(study.classes[tuple(box)] + 1, pads)
        if self.flat:
            return torch.from_numpy(image), torch.from_numpy(classes.astype(np.float32))
        return torch.from_numpy(image[None]), torch.from_numpy(classes[None].astype(np.float32))


def augmentation(patch: Sequence[int], seed: int) -> Any:
    """Rotation, scaling, noise, blur and contrast; no mirroring, which would swap left and right labels."""
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    angle = np.radians(15)
    steps = Compose(
        [
            RandAffined(
                keys=["image", "classes"],
                prob=0.8,
                rotate_range=[angle] * (3 if len(patch) == 3 else 1),
                scale_range=[0.2] * len(patch),
                shear_range=[0.1] * (len(patch) * (len(patch) - 1)),
                spatial_size=list(patch),
                mode=["bilinear", "nearest"],
                padding_mode=["border", "zeros"],
            ),
            RandGaussianNoised(keys="image", prob=0.3, std=0.15),
            RandGaussianSmoothd(keys="image", prob=0.2, **{f"sigma_{axis}": (0.3, 1.0) for axis in "xyz"}),
            RandScaleIntensityd(keys="image", prob=0.5, factors=0.25),
            RandShiftIntensityd(keys="image", prob=0.5, offsets=0.2),
            RandAdjustContrastd(keys="image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )
    steps.set_random_state(seed)
    return steps
