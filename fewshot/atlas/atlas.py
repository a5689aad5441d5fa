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
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor

from fewshot.atlas.images import to_image
from fewshot.atlas.moving import moved
from fewshot.atlas.prior import Box, Prior
from fewshot.atlas.registration import Registered, register
from fewshot.atlas.template import AtlasTemplate, frame
from fewshot.volumes import SliceStack, Volume
from fewshot.volumes.volume import is_regular
from fewshot.volumes.windows import WINDOWS, normalise, window_limits

LEAST_SIMILARITY = 0.2
"""Below this correlation a registration found nothing: arms against the body, or a slab elsewhere."""

PARTS, PAIR = ("whole", "focus"), ("image", "affine")
"""Names in a model file."""

IN_PLACE = 48
"""Points along each axis of a map that moves nothing."""


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

    def locate(self, stack: SliceStack, *, any_pose: bool = False) -> Located | None:
        """Find the templates in a volume, turned in any way if told; None where no registration can be trusted."""
        volume = stack.volume
        turn, affine = _turn(volume)
        normalised = normalise(volume.array, window_limits(volume, self.window))
        image = to_image(apply_orientation(normalised, turn), affine)
        with ThreadPoolExecutor(min(len(self.templates), os.cpu_count() or 1)) as pool:
            registered = list(
                pool.map(lambda template: register(image, template.target, any_pose=any_pose), self.templates)
            )
        pairs = zip(self.templates, registered, strict=True)
        found = [
            (template, _as_stored(of, turn, volume.shape))
            for template, of in pairs
            if of and of.similarity >= LEAST_SIMILARITY
        ]
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


def _turn(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """How a volume's axes come closest to RAS (nibabel's orientation ``[3, 2]``), and its affine then.

    Registration draws voxels and optimises axis by axis: all ways to store a volume have to look alike to it. A picture
    lies nowhere and stays as it is.
    """
    if volume.shape[2] == 1:
        return np.array([[0, 1], [1, 1], [2, 1]]), frame(volume)
    turn = io_orientation(volume.affine)
    return turn, volume.affine @ inv_ornt_aff(turn, volume.shape)


def _as_stored(of: Registered, turn: np.ndarray, shape: tuple[int, int, int]) -> Registered:
    """What was registered on turned axes, on those of the file."""
    back = ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), turn)
    low, high = np.zeros(3, int), np.zeros(3, int)
    for axis, (target, flip) in enumerate(turn.astype(int)):
        first, last = int(of.low[target]), int(of.high[target])
        low[axis], high[axis] = (first, last) if flip > 0 else (shape[axis] - last, shape[axis] - first)
    return Registered(np.asarray(apply_orientation(of.places, back)), low, high, of.similarity)


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
