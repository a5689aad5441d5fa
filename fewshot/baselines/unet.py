"""A small U-Net trained from scratch on the templates."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fewshot.baselines.base import Baseline
from fewshot.baselines.common import (
    checked_labels,
    known_classes,
    nothing_to_see,
    predicted,
    slicing,
    spacing,
    stack_of,
)
from fewshot.baselines.patches import PatchSource, Study
from fewshot.baselines.unet_training import make_network, sliding_probabilities, train
from fewshot.errors import FewshotError
from fewshot.features.device import choose_device, choose_dtype
from fewshot.localize import MAX_PARTS, keep_components
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import number
from fewshot.support import Template, parts_per_label
from fewshot.volumes import SliceStack, Volume
from fewshot.volumes.windows import normalise

LEAST_SLICES = 16
"""Volumes with fewer slices are seen slice by slice."""

LARGEST_RATIO = 3.0
"""Volumes whose slices lie more than this many pixels apart are seen slice by slice."""

LARGEST_BATCH = 12


class UNet(Baseline):
    """What a small network learns from the templates alone, in a stated time."""

    name = "unet"
    description = "A small residual U-Net (MONAI) trained from scratch on the templates in a given time."
    source = "Ronneberger et al. 2015, Çiçek et al. 2016 (U-Net); Isensee et al. 2021 (nnU-Net, its rules)"

    @dataclass(frozen=True)
    class Options:
        """Settings of network and training.

        Attributes:
            seconds: of training; the number of steps that fit is found after the first ones.
            steps: of training at most; with enough ``seconds`` this alone decides, and the result repeats.
            channels: of the levels of the network.
            side: pixels along the longer side of a slice at most; larger volumes are coarsened to it.
            patch_voxels: about how many voxels a patch has at most.
            rate: learning rate at the beginning.
        """

        seconds: float = number(180.0, above=0, below=1e7)
        steps: int = 1_000_000
        channels: tuple[int, ...] = (16, 32, 64, 128)
        side: int = 256
        patch_voxels: int = 110_592
        rate: float = number(2e-3, above=0, below=1)

    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> dict[str, float]:
        """Train on the templates.

        Returns:
            ``steps`` done (``--set unet.steps=`` this number repeats the training), ``planned_steps`` and
            ``loss``.

        Raises:
            FewshotError: without MONAI, or for a label that no template shows.
        """
        _require_monai()
        options = self.options
        self._labels = checked_labels(templates, labels)
        self._templates = [template.volume.name for template in templates]
        self._seed = seed
        self._spec = slicing([template.volume for template in templates])
        stacks = [stack_of(template.volume, self._spec) for template in templates]
        self._parts = parts_per_label(templates, list(labels), self._spec, 1)
        self._calibrated = all(template.volume.calibrated for template in templates)
        self._plan(stacks)
        studies = [self._study(template, stack) for template, stack in zip(templates, stacks, strict=True)]
        self._patch = self._patch_shape([study.classes.shape for study in studies])
        self._batch = self._batch_size()
        device = choose_device(self.device)
        # torch's 3D convolutions in bfloat16 take five times as long as in float32 on a CPU
        self._dtype = choose_dtype(device) if device.type == "cuda" else torch.float32
        patch = self._patch[1:] if self._flat else self._patch
        self._network = make_network(
            options.channels, strides(patch, len(options.channels) - 1), len(labels) + 1, seed=seed
        ).to(device)
        return train(
            self._network,
            PatchSource(studies, self._patch, seed=seed),
            batch=self._batch,
            seconds=options.seconds,
            steps=options.steps,
            rate=options.rate,
            dtype=self._dtype,
            progress=progress,
        )

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Find the labels patch by patch, and keep as many parts of each as the templates have."""
        start = time.perf_counter()
        stack = stack_of(volume, self._spec)
        shape = self._grid(stack)
        image = torch.from_numpy(self._image(stack, shape))
        # slices are samples of a flat network; a volume is one sample
        samples = image[0][:, None] if self._flat else image[None]
        found = sliding_probabilities(
            self._network,
            samples,
            self._patch[1:] if self._flat else self._patch,
            dtype=self._dtype,
            batch=self._batch,
        )
        progress("predict", 1, 1)
        native = (len(stack), *stack.native)
        maps = np.zeros((*native, len(self._labels) + 1), np.float16)
        for channel in range(maps.shape[-1]):
            of = found[:, channel] if self._flat else found[0, channel]
            maps[..., channel] = _resized(of[None, None], native)[0, 0]
        maps[stack.air] = np.eye(maps.shape[-1])[0]
        network = time.perf_counter()
        parts = [count if count <= MAX_PARTS else None for count in self._parts]
        classes = maps.argmax(-1).astype(np.uint16)
        classes = keep_components(classes, parts, voxel_ml=float(np.prod(volume.spacing)) / 1000)
        return predicted(
            stack,
            maps,
            classes,
            labels=self._labels,
            timings={"network": network - start, "total": time.perf_counter() - start},
            provenance={
                "baseline": self.name,
                "templates": self._templates,
                "window": self._spec.window,
                "spacing": list(self._spacing),
                "patch": list(self._patch),
                "seed": self._seed,
            },
            notes=[*filter(None, [nothing_to_see(stack)])],
        )

    def _plan(self, stacks: Sequence[SliceStack]) -> None:
        """Decide slice-wise or not, and the spacing that all volumes are brought to."""
        steps = np.median([self._steps(stack) for stack in stacks], axis=0)
        slices = statistics.median(len(stack) for stack in stacks)
        thick = steps[0] > LARGEST_RATIO * min(steps[1:])
        self._flat = bool(slices < LEAST_SLICES or thick)
        self._longest = statistics.median(max(stack.native) for stack in stacks)
        longest = statistics.median(
            max(np.multiply(stack.native, self._steps(stack)[1:])) for stack in stacks
        )
        coarsest = float(longest) / self.options.side
        self._spacing = tuple(float(max(step, coarsest)) for step in steps)

    def _steps(self, stack: SliceStack) -> tuple[float, float, float]:
        return spacing(stack) if self._calibrated else (1.0, 1.0, 1.0)

    def _grid(self, stack: SliceStack) -> tuple[int, int, int]:
        """Voxels of a volume at the network's spacing; one without calibration is as large as the templates."""
        native = np.array((len(stack), *stack.native))
        steps = np.array(self._steps(stack))
        if not (self._calibrated and stack.volume.calibrated):
            steps = np.ones(3) * self._longest / max(stack.native)
            if self._calibrated:
                steps = steps * min(self._spacing[1:])
        wanted = np.rint(native * steps / np.array(self._spacing))
        slices = native[0] if self._flat else max(1, int(wanted[0]))
        return int(slices), max(1, int(wanted[1])), max(1, int(wanted[2]))

    def _image(self, stack: SliceStack, shape: tuple[int, int, int]) -> np.ndarray:
        """Windowed, of mean 0 and standard deviation 1, float32 ``[1, *shape]``."""
        array = normalise(stack.slices(stack.volume.array), stack.limits)
        array = (array - array.mean()) / max(float(array.std()), 1e-6)
        return _resized(torch.from_numpy(np.ascontiguousarray(array))[None, None], shape)[0]

    def _study(self, template: Template, stack: SliceStack) -> Study:
        shape = self._grid(stack)
        classes = known_classes(template, stack, list(self._labels))
        axes = [
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip(shape, classes.shape, strict=True)
        ]
        undrawn = [False] + [name not in template.drawn for name in self._labels]
        return Study(self._image(stack, shape), classes[np.ix_(*axes)], np.array(undrawn))

    def _patch_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
        """The median template, cut down along its longest sides until it has few enough voxels."""
        unit = 2 ** (len(self.options.channels) - 1)
        sides = [unit * math.ceil(statistics.median(side) / unit) for side in zip(*shapes, strict=True)]
        if self._flat:
            sides[0] = 1
        while math.prod(sides) > self.options.patch_voxels and max(sides) > 2 * unit:
            sides[sides.index(max(sides))] -= unit
        return sides[0], max(sides[1], 2 * unit), max(sides[2], 2 * unit)

    def _batch_size(self) -> int:
        fitting = 2 * self.options.patch_voxels // math.prod(self._patch)
        return max(2, min(LARGEST_BATCH, fitting))


def strides(patch: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """Halve each axis from level to level, as long as it keeps four voxels or more."""
    sides, chosen = list(patch), []
    for _ in range(levels):
        step = tuple(2 if side >= 8 else 1 for side in sides)
        sides = [side // by for side, by in zip(sides, step, strict=True)]
        chosen.append(step)
    return chosen


def _resized(array: torch.Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """``[B, C, *axes]`` at another size: averaged where it shrinks, then linear."""
    from torch.nn.functional import adaptive_avg_pool3d, interpolate

    if array.shape[2:] == shape:
        return np.asarray(array.numpy())
    depth, rows, cols = (min(old, new) for old, new in zip(array.shape[2:], shape, strict=True))
    array = adaptive_avg_pool3d(array, (depth, rows, cols))
    return np.asarray(interpolate(array, size=shape, mode="trilinear", align_corners=False).numpy())


def _require_monai() -> None:
    try:
        import monai  # noqa: F401
    except ImportError as error:
        raise FewshotError(
            "Baseline unet needs the package MONAI, which is not installed; run `pip install monai`."
        ) from error
