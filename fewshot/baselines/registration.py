"""Label transfer: register each template with the volume and move its labels along."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fewshot.baselines.alignment import Alignment, Effort, Picture, align_affine, align_spline, similarity
from fewshot.baselines.base import Baseline
from fewshot.baselines.common import (
    UNKNOWN,
    checked_labels,
    fill_between,
    known_classes,
    nothing_to_see,
    predicted,
    slicing,
    spacing,
    stack_of,
)
from fewshot.errors import FewshotError
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import number
from fewshot.support import Template
from fewshot.volumes import SliceStack, Volume
from fewshot.volumes.windows import normalise

CHUNK = 4_000_000
"""Voxels times labels that are fused at once, to bound the memory."""

SIMILARITY_WIDTH = 7
"""Voxels along each side of the boxes in which template and volume are compared."""


@dataclass(frozen=True, eq=False)
class _Atlas:
    """A template ready for transfer: its windowed image, and its classes ``[S, rows, cols]``."""

    name: str
    image: Picture
    classes: np.ndarray
    drawn: np.ndarray
    """bool ``[L]``: which labels were looked for in it."""
    calibrated: bool


class Registration(Baseline):
    """Atlas registration: start, affine, B-spline, linear transfer of labels, fusion by local similarity."""

    name = "registration"
    description = "Affine and B-spline registration of each template (SimpleITK), label transfer and fusion."
    source = (
        "Mattes et al. 2003 (mutual information), Rueckert et al. 1999 (B-spline deformation), "
        "Artaechevarria et al. 2009 (locally weighted fusion), Iglesias & Sabuncu 2015 (review)"
    )

    @dataclass(frozen=True)
    class Options:
        """Settings of the registration.

        Attributes:
            bspline: deform after the affine registration.
            grid: distance of the B-spline's control points on the finest level, as a share of the longest
                side of the part that is deformed.
            margin: that part is the box around the transferred labels, widened on each side by this share.
            max_voxels: the finest image of each stage is coarsened to so many voxels.
            samples: places at which the images are compared, drawn once per level with the seed.
            affine_iterations: at most, per level.
            spline_iterations: at most, per level.
            gain: exponent of the local similarity in the weights of several templates.
            fill: interpolate labels between the labelled slices of a partly labelled template.
            threads: templates registered at the same time; the result does not depend on it.
        """

        bspline: bool = True
        grid: float = number(0.2, above=0.01, below=2)
        margin: float = number(0.35, above=0, below=10)
        max_voxels: int = 400_000
        samples: int = 8000
        affine_iterations: int = 100
        spline_iterations: int = 25
        gain: float = number(4.0, above=0, below=100)
        fill: bool = True
        threads: int = 2

    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> dict[str, float]:
        """Keep the templates; nothing is trained."""
        self._labels = checked_labels(templates, labels)
        self._spec = slicing([template.volume for template in templates])
        self._seed = seed
        self._atlases = []
        for done, template in enumerate(templates, start=1):
            stack = stack_of(template.volume, self._spec)
            classes = known_classes(template, stack, list(labels))
            if self.options.fill:
                classes = fill_between(classes, spacing(stack)[1:])
            self._atlases.append(
                _Atlas(
                    name=template.volume.name,
                    image=_picture(stack),
                    classes=classes.reshape(_shape(stack)),
                    drawn=np.array([name in template.drawn for name in labels]),
                    calibrated=template.volume.calibrated,
                )
            )
            progress("train", done, len(templates))
        return {}

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Register every template with the volume and fuse their labels.

        Raises:
            FewshotError: for a single slice where the templates are volumes, or the other way round.
        """
        start = time.perf_counter()
        stack = stack_of(volume, self._spec)
        image = _picture(stack)
        for atlas in self._atlases:
            if atlas.image.array.ndim != image.array.ndim:
                raise FewshotError(
                    f"{volume.name} and the template {atlas.name} are not both single slices or both volumes "
                    "and cannot be registered; evaluate them apart."
                )
        transfers = []
        with ThreadPoolExecutor(self.options.threads) as pool:
            for moved in pool.map(
                lambda atlas: self._transfer(image, volume.calibrated, atlas), self._atlases
            ):
                transfers.append(moved)
                progress("predict", len(transfers), len(self._atlases))
        registered = time.perf_counter()
        maps = self._fuse(image, transfers).reshape(*stack.slices(volume.array).shape, -1)
        notes = [f"{of.atlas.name}: {note}" for of in transfers for note in of.alignment.notes]
        return predicted(
            stack,
            maps,
            maps.argmax(-1).astype(np.uint16),
            labels=self._labels,
            timings={"registration": registered - start, "total": time.perf_counter() - start},
            provenance={
                "baseline": self.name,
                "templates": [atlas.name for atlas in self._atlases],
                "window": self._spec.window,
                "seed": self._seed,
            },
            notes=[*notes, *filter(None, [nothing_to_see(stack)])],
        )

    def _transfer(self, image: Picture, calibrated: bool, atlas: _Atlas) -> _Transfer:
        moving = atlas.image
        if not (calibrated and atlas.calibrated):  # only their shapes can be compared
            scale = float(max(image.extent) / max(moving.extent))
            moving = Picture.centred(moving.array, [scale * step for step in moving.spacing])
        options = self.options
        effort = Effort(
            voxels=options.max_voxels,
            samples=options.samples,
            affine_iterations=options.affine_iterations,
            spline_iterations=options.spline_iterations,
            spacing=options.grid,
            seed=self._seed,
        )
        alignment = align_affine(image, moving, effort)
        transfer = _Transfer(atlas, moving, alignment, None)
        box = transfer.box(image, options.margin) if options.bspline else None
        if box is not None:
            part = image.cropped(*box)
            alignment = align_spline(part, moving, alignment, effort)
        weights = None
        if len(self._atlases) > 1:
            weights = similarity(moving, alignment, SIMILARITY_WIDTH)
            weights = np.maximum((1 + weights) / 2, 0.01) ** options.gain
        return _Transfer(atlas, moving, alignment, weights)

    def _fuse(self, image: Picture, transfers: Sequence[_Transfer]) -> np.ndarray:
        """Probabilities float16 ``[*image.array.shape, L + 1]``."""
        count = len(self._labels)
        shape = image.array.shape
        maps = np.zeros((*shape, count + 1), np.float16)
        height = max(1, CHUNK // (int(np.prod(shape[1:])) * (count + 2)))
        for first in range(0, shape[0], height):
            rows = slice(first, min(shape[0], first + height))
            part = (rows.stop - rows.start, *shape[1:])
            votes = np.zeros((count, *part), np.float32)
            known = np.zeros((count, *part), np.float32)
            for transfer in transfers:
                moved = transfer.classes(image, rows, count)
                weight = transfer.weight(image, rows)
                votes += moved[1 : count + 1] * weight
                known[transfer.atlas.drawn] += (1 - moved[UNKNOWN]) * weight
            shares = np.divide(votes, known, out=votes, where=known > 1e-6)
            total = shares.sum(0)
            shares /= np.maximum(total, 1)  # labels of different templates may claim the same place
            maps[rows] = np.moveaxis(np.concatenate([np.maximum(1 - total, 0)[None], shares]), 0, -1)
        return maps


@dataclass(frozen=True, eq=False)
class _Transfer:
    """A template after registration with one volume."""

    atlas: _Atlas
    moving: Picture
    alignment: Alignment
    weights: np.ndarray | None

    def classes(self, image: Picture, rows: slice, count: int) -> np.ndarray:
        """Linearly interpolated one-hot maps float32 ``[L + 2, *rows of the image]``, the last for unknown.

        Outside the template's field of view everything is unknown.
        """
        places = np.moveaxis(self.alignment.places(image, rows), 0, -1)
        index = self.moving.to_index(places)
        # one unknown voxel around; the outer half of the outermost voxels belongs to the image
        shape = np.array(self.atlas.classes.shape)
        inside = ((index > -0.5) & (index < shape - 0.5)).all(-1)
        index = np.clip(index, 0, shape - 1)
        low = np.minimum(np.floor(index).astype(np.intp), np.maximum(shape - 2, 0))
        share = (index - low).astype(np.float32)
        flat = np.zeros((count + 2, inside.size), np.float32)
        voxels = np.arange(inside.size)
        for corner in np.ndindex(*[2] * index.shape[-1]):
            at = np.minimum(low + corner, shape - 1)
            weight = np.where(corner, share, 1 - share).prod(-1).ravel()
            classes = self.atlas.classes[tuple(np.moveaxis(at, -1, 0))].ravel()
            flat[classes, voxels] += weight  # UNKNOWN is the last
        flat[:, ~inside.ravel()] = 0
        flat[UNKNOWN, ~inside.ravel()] = 1
        return flat.reshape(-1, *inside.shape)

    def weight(self, image: Picture, rows: slice) -> np.ndarray | float:
        """How much the template counts in some rows of the image."""
        return 1.0 if self.weights is None else self.alignment.on_grid(self.weights, image, rows)

    def box(self, image: Picture, margin: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Corners in mm around the labels as they lie in the image, widened; None if they lie outside."""
        coarse = image.resized(100_000)
        moved = self.classes(coarse, slice(0, len(coarse.array)), int(self.atlas.classes.max()))
        labelled = np.argwhere(moved[1:-1].sum(0) > 0)
        if not len(labelled):
            return None
        corners = [labelled.min(0), labelled.max(0)]
        low, high = (np.array(coarse.origin) + corner * np.array(coarse.spacing) for corner in corners)
        wider = margin * float(max(high - low))
        return low - wider, high + wider


def _shape(stack: SliceStack) -> tuple[int, ...]:
    """Of the arrays that are registered: a single slice has two axes."""
    return stack.native if len(stack) == 1 else (len(stack), *stack.native)


def _picture(stack: SliceStack) -> Picture:
    array = normalise(stack.slices(stack.volume.array), stack.limits).reshape(_shape(stack))
    return Picture.centred(array, spacing(stack)[-array.ndim :])
