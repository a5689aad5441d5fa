"""Intensity windows: which values of a volume become black and white. One window for a whole volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fewshot.volumes.volume import Volume

VISIBLE = 0.02
"""Share of the window that a slice must span to show anything; less is noise around air."""


class Window(NamedTuple):
    """Black and white in Hounsfield units (None: found in the volume), and what it is good for."""

    low: float | None
    high: float | None
    meaning: str


WINDOWS: dict[str, Window] = {
    "auto": Window(None, None, "ct-soft where the values are Hounsfield units, else percentile"),
    "ct-soft": Window(-160.0, 240.0, "soft tissue of CT"),
    "ct-wide": Window(-1000.0, 1000.0, "air to bone in CT"),
    "ct-bone": Window(-500.0, 1300.0, "bone in CT"),
    "ct-lung": Window(-1350.0, 150.0, "lung in CT"),
    "percentile": Window(
        None, None, "0.5 to 99.5 percentile of the whole volume (MR, X-ray, any grey values)"
    ),
}


def auto_window(volume: Volume) -> str:
    """The window that `auto` stands for: by Hounsfield units only where the values can be such.

    Micro-CT and converted images are called CT but hold grey values from 0; those have no air.
    """
    return "ct-soft" if volume.modality == "CT" and volume.lowest < -200 else "percentile"


def window_limits(volume: Volume, window: str) -> tuple[float, float]:
    """Values of `volume` that become 0 and 1; equal for a constant volume."""
    if window == "auto":
        window = auto_window(volume)
    low, high, _ = WINDOWS[window]
    if low is not None and high is not None:
        return low, high
    return volume.grey_range


def normalise(array: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values as float32 in [0, 1] between the limits; all 0 where the limits are equal."""
    low, high = limits
    if low == high:
        return np.zeros(array.shape, dtype=np.float32)
    scaled = (array.astype(np.float32) - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)
