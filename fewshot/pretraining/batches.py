"""Batches of crops: slices drawn on the processor, everything else on the device of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.pretraining.intensity import change_intensities, ct_windows
from fewshot.pretraining.network import WITHOUT_DETAILS
from fewshot.pretraining.settings import PretrainSettings
from fewshot.pretraining.slices import SliceStore
from fewshot.pretraining.views import Places, corresponding, crop_inside, crop_pair

NEIGHBOUR_MM = 3.0
"""Slices so near show the same tissue, with another noise."""
MASKED = 0.5
"""Share of the crops in which tokens are hidden (DINOv2)."""
HIDDEN = (0.1, 0.5)
"""Share of the tokens hidden in these."""

LEAST_HIDDEN = 2
"""Hidden tokens of a batch: the batch norm of iBOT's head needs two, and all processes must have some to compare."""


@dataclass(frozen=True)
class Slices:
    """Slices of one batch: pairs from the same or neighbouring places.

    Attributes:
        first, second: ``[B, 1, S, S]`` in [0, 1].
        contents: ``[B, 2]`` rows and columns inside the square.
        hounsfield: bool ``[B]``.
    """

    first: Tensor
    second: Tensor
    contents: Tensor
    hounsfield: Tensor


class SliceSampler:
    """Draws slices by weight, and for each another one nearby.

    Args:
        store: the slices.
        size: side of the squares that hold them.
        neighbours: chance that the second slice is another one.
    """

    def __init__(self, store: SliceStore, *, size: int, neighbours: float) -> None:
        self._store = store
        self._size = size
        self._neighbours = neighbours
        self._cumulative = np.cumsum(store.weights)

    def draw(self, count: int, generator: np.random.Generator) -> Slices:
        """A batch of ``count`` pairs."""
        first = np.zeros((count, 1, self._size, self._size), np.float32)
        second = np.zeros_like(first)
        contents = np.zeros((count, 2), np.float32)
        hounsfield = np.zeros(count, bool)
        places = np.searchsorted(self._cumulative, generator.random(count) * self._cumulative[-1])
        for row, index in enumerate(np.minimum(places, len(self._store) - 1).tolist()):
            record = self._store.records[index]
            other = index
            if generator.random() < self._neighbours:
                other = int(generator.choice(self._store.near(index, NEIGHBOUR_MM)))
            for target, chosen in ((first, index), (second, other)):
                image = self._store.image(chosen)
                target[row, 0, : image.shape[0], : image.shape[1]] = image
            contents[row], hounsfield[row] = (record.rows, record.cols), record.hounsfield
        return Slices(*(torch.from_numpy(array) for array in (first, second, contents, hounsfield)))


def make_views(
    slices: Slices, settings: PretrainSettings, *, patch: int, generator: torch.Generator
) -> tuple[dict[str, Any], Places | None]:
    """Crops, masks and corresponding places of a batch, on the generator's device.

    Returns:
        What ``Network.forward`` takes (the student's), and the places.
    """
    device, count = generator.device, len(slices.first)
    first, second, contents, hounsfield = (
        getattr(slices, name).to(device) for name in ("first", "second", "contents", "hounsfield")
    )
    pixels = settings.global_pixels - settings.global_pixels % patch
    pair = crop_pair(first, second, contents, pixels=pixels, generator=generator)
    windows = ct_windows(count, generator)
    places = corresponding(*pair, settings.places, generator=generator) if settings.dense else None
    both = torch.cat([crop.images for crop in pair])
    twice = (hounsfield.repeat(2), windows.repeat(2, 1))
    images = change_intensities(both, *twice, generator)
    local = None
    if settings.local_crops and settings.dino:
        small = settings.local_pixels - settings.local_pixels % patch
        crops = [
            crop_inside(first, pair[0], pixels=small, generator=generator)
            for _ in range(settings.local_crops)
        ]
        times = settings.local_crops
        local = change_intensities(
            torch.cat(crops), hounsfield.repeat(times), windows.repeat(times, 1), generator
        )
    side = pixels // patch
    keep = (torch.rand(2 * count, 1, 1, 1, generator=generator, device=device) >= WITHOUT_DETAILS).float()
    batch = {
        "images": images,
        "mask": _masks(2 * count, side, generator),
        "hidden": True,
        "keep": keep,
        "local": local,
        "places": torch.cat([places.first, places.second]) if places else None,
    }
    return batch, places


def _masks(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random tokens of some of the crops, bool ``[count, side, side]``."""
    device = generator.device
    share = HIDDEN[0] + (HIDDEN[1] - HIDDEN[0]) * torch.rand(count, generator=generator, device=device)
    share = share * (torch.rand(count, generator=generator, device=device) < MASKED)
    mask = torch.rand(count, side, side, generator=generator, device=device) < share[:, None, None]
    if int(mask.sum()) < LEAST_HIDDEN:
        mask.view(-1)[:LEAST_HIDDEN] = True
    return mask
