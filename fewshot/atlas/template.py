"""One template of an atlas: reduced images for registration, and its label map at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter

from fewshot.atlas.completion import complete
from fewshot.atlas.images import affine_of, reduced, to_array, to_image
from fewshot.atlas.prior import Box
from fewshot.atlas.registration import Target
from fewshot.volumes import Volume
from fewshot.volumes.sizes import label_radii
from fewshot.volumes.windows import normalise, window_limits

REACH = 3.0
"""A blurred label ends this many deviations from where it was drawn."""


@dataclass(frozen=True, eq=False)
class AtlasTemplate:
    """One template.

    Attributes:
        images: for registration, of the whole and of the region of its labels, each float16 ``[x, y, z]`` in
            [0, 1] with its affine ``[4, 4]``, voxel index -> RAS+ mm; reduced.
        classes: uint16 ``[X, Y, Z]`` on the template's own grid: 0 background, k the k-th label.
        spacing: mm of that grid.
        axis: along which its slices lie.
        labelled: bool ``[S]``, the slices on which labels were drawn (all of a complete template).
        drawn: bool ``[L]``, labels that were looked for.
    """

    images: dict[str, tuple[np.ndarray, np.ndarray]]
    classes: np.ndarray
    spacing: tuple[float, float, float]
    axis: int
    labelled: np.ndarray
    drawn: np.ndarray

    @classmethod
    def of(
        cls,
        volume: Volume,
        classes: np.ndarray,
        *,
        window: str,
        axis: int,
        labelled: np.ndarray,
        drawn: Sequence[bool],
    ) -> Self:
        """A template from its volume and class map ``[X, Y, Z]``."""
        normalised = normalise(volume.array, window_limits(volume, window))
        low, high = _focus(classes, volume.spacing)
        part = normalised[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        whole = frame(volume)
        placed = whole.copy()
        placed[:3, 3] += whole[:3, :3] @ low
        return cls(
            images={"whole": _packed(normalised, whole), "focus": _packed(part, placed)},
            classes=classes.astype(np.uint16),
            spacing=volume.spacing,
            axis=axis,
            labelled=np.asarray(labelled, bool),
            drawn=np.asarray(drawn, bool),
        )

    @cached_property
    def target(self) -> Target:
        """The images as SimpleITK has them."""
        return Target(**{name: to_image(array, affine) for name, (array, affine) in self.images.items()})

    @cached_property
    def radii(self) -> np.ndarray:
        """Radius of a ball (of a disc, in a picture) as large as each label, mm ``[L]``; NaN where it is not shown."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.drawn) + 1)[1:]
        return label_radii(counts, self.spacing[:2] if self.classes.shape[2] == 1 else self.spacing)

    @cached_property
    def _boxes(self) -> list[Box | None]:
        """Where each label was drawn ``[L]``."""
        return list(find_objects(self.classes.astype(np.int32), max_label=len(self.drawn)))

    def map_of(self, label: int, sigma: float) -> tuple[np.ndarray, np.ndarray] | None:
        """A label's probability, blurred.

        Args:
            label: 1 to L.
            sigma: mm.

        Returns:
            Its first voxel ``[3]`` and float32 probabilities of the box that holds it; None where it is not shown.
        """
        drawn_box = self._boxes[label - 1]
        if drawn_box is None:
            return None
        radius = float(self.radii[label - 1])
        spacing = np.array(self.spacing)
        sides = np.array(self.classes.shape)
        margin = np.ceil(REACH * sigma / spacing).astype(int) + 1
        if not self.labelled.all():
            margin[self.axis] += int(np.ceil(REACH * radius / spacing[self.axis]))
        low = np.maximum([of.start for of in drawn_box] - margin, 0)
        high = np.minimum([of.stop for of in drawn_box] + margin, sides)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask = np.moveaxis(self.classes[box] == label, self.axis, 0)
        of_slices = self.labelled[box[self.axis]]
        soft = complete(mask, of_slices, reach=max(1.0, radius / spacing[self.axis]))
        soft = np.moveaxis(soft, 0, self.axis)
        if sigma > 0:
            deviation = np.where(sides > 1, sigma / spacing, 0)
            soft = gaussian_filter(soft, deviation, mode="nearest", truncate=REACH)
        return low, soft


def _focus(classes: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Box of the labels with a margin of one typical radius: first voxel and the one after the last, ``[3]``."""
    sides = np.array(classes.shape)
    counts = np.bincount(classes.ravel())[1:]
    box = next(iter(find_objects((classes > 0).astype(np.int8))), None)
    if box is None:
        return np.zeros(3, int), sides
    radii = label_radii(counts[counts > 0], spacing[:2] if sides[2] == 1 else spacing)
    margin = np.ceil(float(np.median(radii)) / np.array(spacing)).astype(int)
    return np.maximum([of.start for of in box] - margin, 0), np.minimum(
        [of.stop for of in box] + margin, sides
    )


def frame(volume: Volume) -> np.ndarray:
    """A volume's affine ``[4, 4]``; of a picture, which lies nowhere, its spacing alone."""
    return volume.affine if volume.shape[2] > 1 else np.diag([*volume.spacing, 1.0])


def _packed(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A reduced image and its affine."""
    small = reduced(to_image(array, affine))
    return to_array(small).astype(np.float16), affine_of(small)
