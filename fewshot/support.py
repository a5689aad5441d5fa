"""The support set: labelled template volumes and the pixel features drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from fewshot.adapters.pixels import at_points
from fewshot.adapters.samples import Samples
from fewshot.errors import FewshotError
from fewshot.features import Backbone, BankEntry, FeatureBank
from fewshot.localize import count_parts
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, SliceStack, Volume
from fewshot.volumes.sizes import label_radii
from fewshot.volumes.volume import spacing_of

PIXELS_PER_LABEL = 4000
"""Pixels drawn of one label from all templates together; more did not help and cost memory."""

BACKGROUND_FACTOR = 2
"""Background pixels drawn, in terms of ``PIXELS_PER_LABEL``; the adapters balance them as they need."""

NEAR_SHARE = 2 / 3
"""Of hard background: the share that is drawn near the labels; the rest keeps far tissue from being taken for them."""

NEAR_RADII, NEAR_PIXELS = 3.0, 4.0
"""What counts as near: so many radii of a typical label, at least so many pixels."""

MAX_PIXELS = 60_000
"""Of all labels together, so that 37 labels on a wide backbone still fit into memory."""


@dataclass(frozen=True, eq=False)
class Template:
    """A volume with a label map.

    Attributes:
        volume: the image.
        labels: uint16 ``[X, Y, Z]`` on the volume's grid.
        names: label name -> value in ``labels``; these are the labels that were drawn (or looked for) here.
        complete: True if slices without any label are background; otherwise they are unknown.
    """

    volume: Volume
    labels: np.ndarray
    names: dict[str, int]
    complete: bool = False

    def __post_init__(self) -> None:
        if self.labels.shape != self.volume.array.shape:
            raise FewshotError(
                f"The label of {self.volume.name} has {self.labels.shape} voxels, its image "
                f"{self.volume.array.shape}; draw the label on this image."
            )
        present = self.values
        if unnamed := present - set(self.names.values()):
            raise FewshotError(
                f"The label of {self.volume.name} holds the value {min(unnamed)}, which has no name; "
                f"known are {', '.join(f'{name} = {value}' for name, value in self.names.items()) or 'none'}."
            )
        if not present:
            raise FewshotError(f"The label of {self.volume.name} is empty; label at least one slice.")

    @cached_property
    def values(self) -> set[int]:
        """Values that occur in the label map, background not counted."""
        return set(np.flatnonzero(np.bincount(self.labels.ravel())).tolist()) - {0}

    @property
    def drawn(self) -> list[str]:
        """Names that occur in the label map; in a complete template all its names were looked for."""
        return [name for name, value in self.names.items() if self.complete or value in self.values]


def label_names(templates: Sequence[Template]) -> list[str]:
    """All names that have at least one voxel, in order of first appearance."""
    names: dict[str, None] = {}
    for template in templates:
        names.update(
            dict.fromkeys(name for name, value in template.names.items() if value in template.values)
        )
    return list(names)


def collect_samples(
    templates: Sequence[Template],
    labels: Sequence[str],
    *,
    spec: SliceSpec,
    backbone: Backbone,
    bank: FeatureBank,
    hard: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Samples:
    """Pixel features of the templates' labelled slices, with the class of each pixel.

    Negatives come from the labelled slices, anywhere outside the RoI (paper, figure 3).

    Args:
        labels: names in class order; class k is ``labels[k - 1]``.
        spec: resolved slicing, the same for all templates.
        hard: draw most of the background near the labels, where it has to be told from them.
    """
    generator = np.random.default_rng(seed)
    quota = min(PIXELS_PER_LABEL, MAX_PIXELS // (len(labels) + BACKGROUND_FACTOR))
    background = quota * BACKGROUND_FACTOR
    near = round(background * NEAR_SHARE) if hard else 0
    quotas = np.array([background - near] + [quota] * len(labels) + [near])
    stacks = [SliceStack(template.volume, spec, patch=backbone.patch) for template in templates]
    maps = [
        _known_classes(template, stack, labels) for template, stack in zip(templates, stacks, strict=True)
    ]
    strata = [
        _with_surroundings(classes, stack, len(labels) + 1) if hard else classes
        for classes, stack in zip(maps, stacks, strict=True)
    ]
    counts = sum(np.bincount(of[of >= 0], minlength=len(quotas)) for of in strata)
    shares = np.minimum(1, quotas / np.maximum(1, counts))
    parts, slice_offset = [], 0
    for template, stack, classes in zip(templates, stacks, strata, strict=True):
        entry = bank.features(stack, backbone, progress=progress)
        possible = torch.tensor([True] + [name not in template.drawn for name in labels])
        for stratum, share in enumerate(shares):
            places = _draw(classes, stratum, share, generator)
            if not len(places):
                continue
            target = stratum if stratum <= len(labels) else 0
            row = possible if target == 0 else torch.arange(len(labels) + 1) == target
            parts.append(
                Samples(
                    features=_features_at(entry, stack, places),
                    targets=torch.full((len(places),), target),
                    slices=torch.from_numpy(places[:, 0]) + slice_offset,
                    possible=row.expand(len(places), -1),
                    weights=torch.full((len(places),), float(1 / share)),
                )
            )
        slice_offset += len(classes)
    if not parts:
        raise FewshotError(
            "No labelled slice of the templates shows anything but air; check image and label."
        )
    samples = Samples(*(torch.cat([getattr(p, f) for p in parts]) for f in Samples.__dataclass_fields__))
    _require_all(samples, labels)
    return samples


def parts_per_label(
    templates: Sequence[Template], labels: Sequence[str], spec: SliceSpec, patch: int
) -> list[int]:
    """Of how many connected parts each label consists, by the templates themselves; at least 1.

    A partly labelled volume is cut between its labelled slices, so there parts are counted slice by slice.
    """
    most = []
    for name in labels:
        counts = [1]
        for template in templates:
            mask = template.labels == template.names.get(name, -1)
            if not mask.any():
                continue
            if template.complete:
                counts.append(count_parts(mask))
            else:
                slices = SliceStack(template.volume, spec, patch=patch).slices(mask)
                counts += [count_parts(image[None]) for image in slices if image.any()]
        most.append(int(np.ceil(np.median(counts[1:] or counts))))
    return most


def class_map(template: Template, labels: Sequence[str]) -> np.ndarray:
    """int32 ``[X, Y, Z]``: 0 background, k the k-th of ``labels``, -1 a drawn label that is not among them."""
    lookup = np.zeros(int(template.labels.max()) + 1, np.int32)
    for name, value in template.names.items():
        if value < len(lookup):
            lookup[value] = labels.index(name) + 1 if name in labels else -1
    lookup[0] = 0
    return lookup[template.labels]


def _known_classes(template: Template, stack: SliceStack, labels: Sequence[str]) -> np.ndarray:
    """int32 ``[S, rows, cols]``: the class of every pixel of which it is known, else -1."""
    classes = stack.slices(class_map(template, labels))
    classes[stack.air] = -1  # a slice of air has no features
    if not template.complete:
        labelled = (stack.slices(template.labels) > 0).any((1, 2))
        classes[~labelled] = -1
    return classes


def _with_surroundings(classes: np.ndarray, stack: SliceStack, stratum: int) -> np.ndarray:
    """A class map ``[S, rows, cols]`` whose background near the labels is a stratum of its own."""
    counts = np.bincount(classes[classes > 0], minlength=1)[1:]
    boxes = find_objects((classes > 0).astype(np.int8))
    if not boxes:
        return classes
    spacing = np.array(spacing_of(stack.affine))
    radius = float(np.median(label_radii(counts[counts > 0], spacing[1:] if len(stack) == 1 else spacing)))
    reach = max(NEAR_RADII * radius, NEAR_PIXELS * spacing[1:].min())
    margin = np.ceil(reach / spacing).astype(int)
    box = tuple(slice(max(0, of.start - m), of.stop + m) for of, m in zip(boxes[0], margin, strict=True))
    result = classes.copy()
    inside = result[box]  # a view: everything near lies in it
    near = distance_transform_edt(inside <= 0, sampling=spacing) <= reach
    inside[near & (inside == 0)] = stratum
    return result


def _draw(classes: np.ndarray, target: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """A random ``share`` of the pixels of a class: int64 ``[N, 3]`` of (slice, row, column)."""
    places = np.flatnonzero(classes == target)
    wanted = min(len(places), max(1, round(share * len(places)))) if len(places) else 0
    chosen = generator.choice(places, wanted, replace=False) if wanted < len(places) else places
    return np.stack(np.unravel_index(np.sort(chosen), classes.shape), axis=1)


def _features_at(entry: BankEntry, stack: SliceStack, places: np.ndarray) -> Tensor:
    ys, xs = (torch.as_tensor(axis) for axis in stack.patch_coordinates())
    drawn = torch.empty(len(places), entry.features.shape[-1])
    for index, of_slice in _by_slice(places):
        inside = places[of_slice]
        drawn[torch.from_numpy(of_slice)] = at_points(
            entry.of_slice(index), ys[inside[:, 1]], xs[inside[:, 2]]
        )
    return drawn


def _by_slice(places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for index in np.unique(places[:, 0]):
        yield int(index), np.flatnonzero(places[:, 0] == index)


def _require_all(samples: Samples, labels: Sequence[str]) -> None:
    found = set(samples.targets.tolist())
    if missing := [name for index, name in enumerate(labels, start=1) if index not in found]:
        raise FewshotError(
            f"No template pixel of {', '.join(missing)} lies on a slice with image content; check these labels."
        )
    if 0 not in found:
        raise FewshotError(
            "The labelled slices have no background pixel, so there is nothing to tell the labels from; "
            "leave the surroundings of a structure unlabelled."
        )
