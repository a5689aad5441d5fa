"""The templates as an atlas that travels in the model file: reduced images, and label maps at full resolution."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter, map_coordinates
from torch import Tensor

from fewshot.atlas.completion import complete
from fewshot.atlas.prior import Box, Prior
from fewshot.atlas.registration import Registered, Target, affine_of, reduced, register, to_array, to_image
from fewshot.volumes import SliceStack, Volume
from fewshot.volumes.sizes import label_radii
from fewshot.volumes.volume import is_regular
from fewshot.volumes.windows import WINDOWS, normalise, window_limits

LEAST_SIMILARITY = 0.2
"""Below this correlation a registration found nothing: arms against the body, or a slab elsewhere."""

PARTS, PAIR = ("whole", "focus"), ("image", "affine")
"""Names in a model file."""

REACH = 3.0
"""A blurred label ends this many deviations from where it was drawn."""

BLOCK = 1 << 21
"""Voxels that are moved at once: their positions take six times the memory of their values."""

IN_PLACE = 48
"""Points along each axis of a map that moves nothing."""


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


@dataclass(frozen=True, eq=False)
class Located:
    """The templates of an atlas that were found in a volume.

    Attributes:
        found: pairs of a template and how it lies in the volume.
    """

    stack: SliceStack
    found: list[tuple[AtlasTemplate, Registered]]

    def prior(self, sigmas: Sequence[float]) -> Prior:
        """Where each label lies, by all templates that drew it alike.

        Args:
            sigmas: mm of blur for each label: how far the registration may be wrong.
        """
        maps = [self._map(label, sigma) for label, sigma in enumerate(sigmas, start=1)]
        known = np.any([template.drawn for template, _ in self.found], axis=0)
        return Prior(self.stack, maps, unknown=(np.flatnonzero(~known) + 1).tolist())

    def _map(self, label: int, sigma: float) -> tuple[Box, np.ndarray] | None:
        parts = [
            moved(blurred, template.classes.shape, of)
            for template, of in self.found
            if template.drawn[label - 1] and (blurred := template.map_of(label, sigma))
        ]
        there = [part for part in parts if part]
        if not there:
            return None
        low = np.min([[of.start for of in box] for box, _ in there], axis=0)
        high = np.max([[of.stop for of in box] for box, _ in there], axis=0)
        total = np.zeros(high - low, np.float32)
        for box, values in there:
            total[tuple(slice(of.start - a, of.stop - a) for of, a in zip(box, low, strict=True))] += values
        share = total / sum(bool(template.drawn[label - 1]) for template, _ in self.found)
        return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), share.astype(
            np.float16
        )


def moved(
    blurred: tuple[np.ndarray, np.ndarray], sides: Sequence[int], of: Registered
) -> tuple[Box, np.ndarray] | None:
    """A template's map on a query's grid.

    Args:
        blurred: first voxel ``[3]`` in the template, and values of its box.
        sides: the template's shape.
        of: how the template lies in the query.

    Returns:
        A box of the query and float32 values there; None where the map does not come to lie in it.
    """
    first, values = blurred
    extent = np.array(sides, np.float32)
    index = of.places * extent - 0.5 - first.astype(np.float32)
    reach = of.steps * extent  # a label smaller than the grid's cells may lie between its points
    inside = ((index + reach > -1) & (index - reach < values.shape)).all(-1)
    box = next(iter(find_objects(inside.astype(np.int8))), None)
    if box is None:
        return None
    shape = of.high - of.low
    ratio = shape / np.array(of.places.shape[:3])
    low = np.maximum([np.floor((part.start - 1) * r) for part, r in zip(box, ratio, strict=True)], 0).astype(
        int
    )
    high = np.minimum(
        [np.ceil((part.stop + 1) * r) for part, r in zip(box, ratio, strict=True)], shape
    ).astype(int)
    axes = [(np.arange(a, b) + 0.5) / r - 0.5 for a, b, r in zip(low, high, ratio, strict=True)]
    out = np.empty(high - low, np.float32)
    rows = max(1, BLOCK // out[0].size)
    for start in range(0, len(out), rows):
        part = slice(start, start + rows)
        fine = np.moveaxis(interpolated(index, [axes[0][part], *axes[1:]]), -1, 0)
        map_coordinates(values, fine, out[part], order=1, mode="grid-constant", prefilter=False)
    low, high = low + of.low, high + of.low
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), out


def interpolated(grid: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
    """Values ``[x, y, z, C]`` at the crossings of positions along each axis, linearly, the outer ones extended."""
    result = grid
    for axis, positions in enumerate(axes):
        last = result.shape[axis] - 1
        below = np.clip(np.floor(positions), 0, max(last - 1, 0)).astype(int)
        above = np.minimum(below + 1, last)
        share = (
            (positions - below).astype(np.float32).reshape([-1 if axis == i else 1 for i in range(grid.ndim)])
        )
        result = result.take(below, axis) * (1 - share) + result.take(above, axis) * share
    return result


@dataclass(frozen=True, eq=False)
class Atlas:
    """All templates, and the window that their images were seen through.

    Attributes:
        templates: at least one.
        window: a name of `fewshot.volumes.WINDOWS`.
    """

    templates: list[AtlasTemplate]
    window: str

    @cached_property
    def radii(self) -> np.ndarray:
        """Median radius of each label over the templates that show it, mm ``[L]``."""
        of_templates = np.array([template.radii for template in self.templates])
        shown = ~np.isnan(of_templates).all(0)
        radii = np.full(len(shown), np.nan)
        radii[shown] = np.nanmedian(of_templates[:, shown], axis=0)
        return radii

    def locate(self, stack: SliceStack) -> Located | None:
        """Find the templates in a volume; None where no registration can be trusted."""
        volume = stack.volume
        image = to_image(normalise(volume.array, window_limits(volume, self.window)), frame(volume))
        with ThreadPoolExecutor(min(len(self.templates), os.cpu_count() or 1)) as pool:
            registered = list(pool.map(lambda template: register(image, template.target), self.templates))
        pairs = zip(self.templates, registered, strict=True)
        found = [(template, of) for template, of in pairs if of and of.similarity >= LEAST_SIMILARITY]
        return Located(stack, found) if found else None

    def in_place(self, stack: SliceStack) -> Located:
        """The templates in the volume that they were drawn on, where nothing needs to be registered."""
        sides = [min(side, IN_PLACE) for side in stack.volume.shape]
        grid = np.meshgrid(*[(np.arange(side) + 0.5) / side for side in sides], indexing="ij")
        places = np.stack(grid, axis=-1).astype(np.float32)
        whole = Registered(places, np.zeros(3, int), np.array(stack.volume.shape), 1.0)
        return Located(stack, [(template, whole) for template in self.templates])

    def tensors(self) -> dict[str, Tensor]:
        """Arrays for a model file; label maps are compressed."""
        tensors: dict[str, Tensor] = {}
        for number, template in enumerate(self.templates):
            packed = zlib.compress(np.ascontiguousarray(template.classes).tobytes(), 6)
            for name, array in {
                **{
                    f"{part}.{name}": array
                    for part, pair in template.images.items()
                    for name, array in zip(PAIR, pair, strict=True)
                },
                "classes": np.frombuffer(packed, np.uint8).copy(),
                "labelled": template.labelled,
                "drawn": template.drawn,
            }.items():
                tensors[f"atlas.{number}.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
        return tensors

    def config(self) -> dict[str, Any]:
        """What `from_tensors` needs besides; plain JSON."""
        return {
            "window": self.window,
            "templates": [
                {"shape": list(of.classes.shape), "spacing": list(of.spacing), "axis": of.axis}
                for of in self.templates
            ],
        }

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The atlas that `config` and `tensors` describe.

        Raises:
            KeyError, ValueError: if they do not fit each other.
        """
        templates = []
        for number, of in enumerate(config["templates"]):
            arrays = {
                name: tensors[f"atlas.{number}.{name}"].numpy()
                for name in (
                    "classes",
                    "labelled",
                    "drawn",
                    *(f"{part}.{name}" for part in PARTS for name in PAIR),
                )
            }
            x, y, z = of["spacing"]
            classes = np.frombuffer(zlib.decompress(arrays["classes"].tobytes()), np.uint16)
            templates.append(
                AtlasTemplate(
                    images={part: (arrays[f"{part}.image"], arrays[f"{part}.affine"]) for part in PARTS},
                    classes=classes.reshape(of["shape"]),
                    spacing=(x, y, z),
                    axis=of["axis"],
                    labelled=arrays["labelled"],
                    drawn=arrays["drawn"],
                )
            )
            _check(templates[-1], len(templates[0].drawn))
        if not templates or config["window"] not in WINDOWS:
            raise ValueError("the atlas has no template, or no window of this program")
        return cls(templates, config["window"])


def _check(of: AtlasTemplate, labels: int) -> None:
    """Refuse what would fail, or find nothing, only once a volume is waiting."""
    if of.axis not in range(of.classes.ndim) or of.classes.ndim != 3:
        raise ValueError(f"axis {of.axis} of an atlas of shape {of.classes.shape}")
    if of.labelled.shape != (of.classes.shape[of.axis],) or of.drawn.shape != (labels,):
        raise ValueError("the atlas marks other slices or labels than it has")
    if of.classes.max(initial=0) > labels:
        raise ValueError("the atlas holds a label without a name")
    for image, affine in of.images.values():
        if image.ndim != 3 or 0 in image.shape or affine.shape != (4, 4) or not is_regular(affine):
            raise ValueError("an image of the atlas lies nowhere")
