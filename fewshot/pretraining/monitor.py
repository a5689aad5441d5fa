"""What a person sees of a training: curves for TensorBoard, and pictures in which organs come apart."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from fewshot.pretraining.network import Network
from fewshot.pretraining.slices import WIDE, SliceStore
from fewshot.volumes.windows import WINDOWS, normalise

if TYPE_CHECKING:
    from fewshot.pretraining.training import Training

SHOWN = 6
"""Slices in a picture, of as many volumes."""
CURVE_SECONDS = 5.0
CURVES, PICTURES = "curves", "pictures"


class Monitor:
    """Writes curves and pictures of a training.

    Args:
        folder: gets folders for TensorBoard's events and for the pictures.
        store: slices to show.
        size: pixels of the longer side of a slice.
        seconds: between two pictures; 0 for none.
    """

    def __init__(self, folder: Path, store: SliceStore, *, size: int, seconds: float) -> None:
        self._writer = SummaryWriter(str(folder / CURVES))
        self._pictures = folder / PICTURES
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._slices = typical_slices(store, size)
        self._seconds = seconds
        self._pictured = time.monotonic()
        self._drawn = -CURVE_SECONDS

    def step(self, training: Training, averages: dict[str, float], rate: float) -> None:
        """Note the values of a step, now and then with a picture."""
        now = time.monotonic()
        if now - self._drawn > CURVE_SECONDS:
            self._drawn = now
            for name, value in averages.items():
                self._writer.add_scalar(f"train/{name}", value, training.images)
            self._writer.add_scalar("speed/images_per_second", rate, training.images)
            group = training.optimiser.param_groups[0]
            self._writer.add_scalar("schedule/learning_rate", group["lr"], training.images)
        if self._seconds and now - self._pictured > self._seconds:
            self._pictured = now
            self.picture(training.teacher, training.images)

    def picture(self, network: Network, images: int) -> Path:
        """Save a picture of the features after so many images."""
        drawn = principal_components(network, self._slices.to(next(network.parameters()).device))
        path = self._pictures / f"{images:09d}.png"
        Image.fromarray(drawn).save(path)
        self._writer.add_image("features/principal_components", drawn, images, dataformats="HWC")
        self._writer.flush()
        return path

    def close(self) -> None:
        """Write what is left; a full disk has been told of before."""
        with suppress(OSError):
            self._writer.close()


def typical_slices(store: SliceStore, size: int) -> Tensor:
    """The middle slice of at most ``SHOWN`` volumes, ``[N, 1, size, size]``; CT in the window of inference."""
    volumes = np.array([record.volume for record in store.records])
    chosen = np.unique(np.linspace(0, volumes.max(), SHOWN).astype(int))
    shown = torch.zeros(len(chosen), 1, size, size)
    for row, volume in enumerate(chosen):
        rows = np.flatnonzero(volumes == volume)
        stack = [index for index in rows if store.records[index].stack == store.records[rows[0]].stack]
        middle = int(stack[len(stack) // 2])
        image = store.image(middle)
        if store.records[middle].hounsfield:
            image = _soft_tissue(image)
        shown[row, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return shown


def _soft_tissue(image: np.ndarray) -> np.ndarray:
    low, high = (limit or 0.0 for limit in WINDOWS[WIDE][:2])
    black, white = (limit or 0.0 for limit in WINDOWS["ct-soft"][:2])
    return normalise(image * (high - low) + low, (black, white))


@torch.no_grad()
def principal_components(network: Network, images: Tensor) -> np.ndarray:
    """Slices above the first three principal components of their features as red, green and blue.

    Returns:
        uint8 ``[2 * size, N * size, 3]``.
    """
    was_training = network.training
    network.eval()
    side = images.shape[-1]
    patch = network.backbone.patch_embed.patch_size[0]
    padded = functional.pad(images, (0, -side % patch, 0, -side % patch))
    maps = network.maps(padded)
    network.train(was_training)
    features = (maps.patches if maps.details is None else maps.details).float()
    flat = features.flatten(0, 2)
    seen = functional.interpolate(padded, features.shape[1:3], mode="area").flatten() > 0.05
    basis = flat[seen] if int(seen.sum()) > 3 else flat
    mean = basis.mean(0)
    _, _, directions = torch.pca_lowrank(basis - mean, q=3, center=False)
    colours = (flat - mean) @ directions
    low, high = (
        torch.quantile(
            colours[seen][:: max(1, len(basis) // 100_000)] if int(seen.sum()) > 3 else colours, q, dim=0
        )
        for q in (0.02, 0.98)
    )
    colours = ((colours - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) * seen[:, None]
    maps_rgb = colours.view(*features.shape[:3], 3).permute(0, 3, 1, 2)
    shown = functional.interpolate(maps_rgb, padded.shape[-2:], mode="bilinear")[:, :, :side, :side]
    rows = [images.expand(-1, 3, -1, -1), shown]
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    return (picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
