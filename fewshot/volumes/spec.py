"""How volumes become slices: plane, window and pixel size, decided once on the templates."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fewshot.errors import FewshotError
from fewshot.volumes.planes import PLANES, acquisition_plane, in_plane
from fewshot.volumes.volume import Volume
from fewshot.volumes.windows import WINDOWS, auto_window

SIZES = (16, 4096)
DEFAULT_SIZE = 448
"""Pixels along a slice's longer side where neither the caller nor a backbone says anything."""
STEPS_PER_OCTAVE = 8
"""Pixel sizes go in steps of 2**(1/8): another template rarely changes them, and the bank stays warm."""


@dataclass(frozen=True)
class SliceSpec:
    """How volumes are cut into slices.

    Args:
        plane: One of PLANES; "auto" is the plane of acquisition.
        window: One of WINDOWS.
        size: Pixels of a slice's longer side (of a template where `pixel_mm` is resolved from it); None
            leaves it to the caller, who knows what suits the backbone.
        pixel_mm: Millimetres per pixel, the same for all volumes; None scales each volume to `size`.

    Raises:
        FewshotError: A value is not one of those possible.
    """

    plane: str = "auto"
    window: str = "auto"
    size: int | None = None
    pixel_mm: float | None = None

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise FewshotError(f"There is no plane {self.plane!r}; choose one of {', '.join(PLANES)}.")
        if self.window not in tuple(WINDOWS):
            raise FewshotError(f"There is no window {self.window!r}; choose one of {', '.join(WINDOWS)}.")
        smallest, largest = SIZES
        if self.size is not None and not (type(self.size) is int and smallest <= self.size <= largest):
            raise FewshotError(
                f"The slice size {self.size!r} is out of range; give {smallest} to {largest} pixels."
            )
        if self.pixel_mm is not None and not _is_length(self.pixel_mm):
            raise FewshotError(
                f"The pixel size {self.pixel_mm!r} cannot be used; give millimetres above 0, or none."
            )

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SliceSpec:
        """The spec that `to_dict` gave; values left out have their defaults.

        Raises:
            FewshotError: A name or value is unknown.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise FewshotError(f"A slice spec has no {', '.join(unknown)}; it has {', '.join(known)}.")
        return cls(**values)


def resolve_spec(spec: SliceSpec, volumes: Sequence[Volume]) -> SliceSpec:
    """Decide what `spec` leaves open on the template volumes, so that query volumes are cut alike.

    The plane is that in which most were acquired, the window fits all, and the pixel size makes the median
    longest side of their slices `spec.size` pixels; it stays open where a volume is not calibrated.

    Raises:
        FewshotError: There is no volume to decide on.
    """
    if not volumes:
        raise FewshotError("There is no template to cut slices by; give at least one volume.")
    plane, window, pixel_mm = spec.plane, spec.window, spec.pixel_mm
    size = spec.size or DEFAULT_SIZE
    if plane == "auto":
        plane = Counter(acquisition_plane(volume) for volume in volumes).most_common(1)[0][0]
    if window == "auto":
        windows = {auto_window(volume) for volume in volumes}
        window = windows.pop() if len(windows) == 1 else "percentile"
    if pixel_mm is None and all(volume.calibrated for volume in volumes):
        longest = statistics.median(longest_side(volume, plane) for volume in volumes)
        steps = round(math.log2(longest / size) * STEPS_PER_OCTAVE)
        pixel_mm = 2.0 ** (steps / STEPS_PER_OCTAVE)
    return SliceSpec(plane=plane, window=window, size=size, pixel_mm=pixel_mm)


def longest_side(volume: Volume, plane: str) -> float:
    """Millimetres of the longer side of the slices of a volume in a plane."""
    rows, cols = in_plane(volume.affine, plane)
    return max(volume.shape[axis] * volume.spacing[axis] for axis in (rows, cols))


def longest_count(volume: Volume, plane: str) -> int:
    """Voxels along the longer side of the slices of a volume in a plane."""
    return max(volume.shape[axis] for axis in in_plane(volume.affine, _decided(plane, volume)))


def _decided(plane: str, volume: Volume) -> str:
    return acquisition_plane(volume) if plane == "auto" else plane


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
