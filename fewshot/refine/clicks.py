"""Interactive segmentation: a few clicks on slices of a volume become one object's mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.progress import Progress, silent
from fewshot.refine.carrying import carry
from fewshot.refine.click_features import SliceFeatures
from fewshot.refine.encoding import Embeddings
from fewshot.refine.painting import GrowingPainter, Painter, Points, SamPainter
from fewshot.refine.sam.model import SamModel
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec
from fewshot.volumes.planes import ACROSS
from fewshot.volumes.spec import SIZES, longest_count
from fewshot.volumes.windows import VISIBLE, normalise

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Clicks:
    """What the user pointed at, in voxel indices (i, j, k) of the volume.

    Attributes:
        foreground: inside the object; the first of a slice grows, further ones correct.
        background: outside it.
    """

    foreground: Sequence[Voxel]
    background: Sequence[Voxel] = ()


@dataclass(frozen=True, eq=False)
class Clicked:
    """The object that was clicked.

    Attributes:
        mask: bool ``[X, Y, Z]`` on the volume's grid.
        how: ``walker``, ``sam`` or ``sam2``.
        notes: what the user must know.
        timings: seconds per stage.
    """

    mask: np.ndarray
    how: str
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


def segment_clicks(
    volume: Volume,
    clicks: Clicks,
    *,
    whole: bool = False,
    slice_axis: int = 2,
    backbone: Backbone,
    bank: FeatureBank,
    sam: SamModel | None = None,
    spec: SliceSpec | None = None,
    progress: Progress = silent,
) -> Clicked:
    """Segment the object that was clicked.

    Args:
        volume: what was clicked in.
        clicks: at least one foreground voxel.
        whole: carry the object on to the other slices, until it ends; else only slices with clicks are segmented,
            each for itself.
        slice_axis: voxel axis (0, 1, 2) across the slices that were looked at; the third in 3D Slicer and OHIF.
        backbone: its features tell tissues apart where there is no SAM.
        bank: keeps features and embeddings, so that the next click is answered at once.
        sam: a Segment Anything model; without one the region grows by appearance.
        spec: window and pixel size as of the volume's predictions, whose features are then used; its plane gives
            way to ``slice_axis``.
        progress: told the stage ``clicks`` over slices.

    Raises:
        FewshotError: no foreground click, a click outside the volume, one that is foreground and background, or one
            on a slice that shows nothing.
    """
    start = time.perf_counter()
    stack, index_of = _cut(volume, slice_axis, spec, backbone)
    placed = _place(volume, clicks, stack)
    _require_content(stack, placed, index_of)
    notes: list[str] = []
    timings: dict[str, float] = {}
    embeddings = Embeddings(stack, sam, bank) if sam is not None else None
    starts = [index for index, points in placed.items() if len(points.foreground)]
    painter: Painter
    if sam is not None and embeddings is not None:
        embeddings.prepare(starts, progress)
        painter = SamPainter(embeddings, sam)
    else:
        features = SliceFeatures(stack, backbone, bank)
        for index in starts:
            features.of_slice(index)
        painter = GrowingPainter(features)
    timings["features"] = time.perf_counter() - start
    masks = {index: painter.first(index, placed[index]) for index in starts}
    timings["slices"] = time.perf_counter() - start - timings["features"]
    how = painter.how if sam is None else sam.kind
    if whole and len(stack) > 1:
        if sam is not None and embeddings is not None and sam.kind == "sam2":
            masks |= _followed(sam, embeddings, masks, len(stack), notes, progress)
        else:
            nothing = Points(np.zeros((0, 2)), np.zeros((0, 2)))
            masks = carry(
                painter,
                masks,
                len(stack),
                lambda index: placed.get(index, nothing),
                lambda index: _shows(stack, index),
                progress,
            )
        timings["volume"] = time.perf_counter() - start - sum(timings.values())
    slices = np.zeros((len(stack), *stack.native), bool)
    for index, mask in masks.items():
        slices[index] = mask
    if sam is not None and embeddings is not None:
        notes += [sam.note] if sam.note else []
        notes += embeddings.notes
    if not slices.any():
        notes.append("Nothing was found around the clicks: click again, farther inside the structure.")
    timings["total"] = time.perf_counter() - start
    rounded = {stage: round(seconds, 4) for stage, seconds in timings.items()}
    return Clicked(stack.restore(slices), how, list(dict.fromkeys(notes)), rounded)


def warm_clicks(
    volume: Volume,
    slices: Sequence[int] | None = None,
    *,
    slice_axis: int = 2,
    backbone: Backbone,
    bank: FeatureBank,
    sam: SamModel | None = None,
    spec: SliceSpec | None = None,
    progress: Progress = silent,
) -> int:
    """Compute what clicks will need, so that the first one is answered at once.

    Args:
        slices: voxel indices along ``slice_axis``; all by default.

    Returns:
        Number of slices computed now.
    """
    stack, index_of = _cut(volume, slice_axis, spec, backbone)
    sides = volume.shape[slice_axis]
    if slices is not None and (wrong := [number for number in slices if not 0 <= number < sides]):
        raise FewshotError(
            f"{volume.name or 'The volume'} has no slice {wrong[0]} along axis {slice_axis}; give 0 to {sides - 1}."
        )
    wanted = [index_of(number) for number in (range(sides) if slices is None else slices)]
    wanted = [index for index in wanted if _shows(stack, index)]
    if sam is not None:
        return Embeddings(stack, sam, bank).prepare(wanted, progress)
    features = SliceFeatures(stack, backbone, bank)
    if slices is None:
        return features.prepare_all(progress)
    for done, index in enumerate(wanted, start=1):
        features.of_slice(index)
        progress("features", done, len(wanted))
    return features.computed


def _cut(
    volume: Volume, slice_axis: int, spec: SliceSpec | None, backbone: Backbone
) -> tuple[SliceStack, Callable[[int], int]]:
    """The slices across a voxel axis, and the number there of a voxel index along that axis."""
    if slice_axis not in (0, 1, 2):
        raise FewshotError(f"A volume has no voxel axis {slice_axis}; give 0, 1 or 2.")
    plane = ACROSS[int(nib.io_orientation(volume.affine)[slice_axis, 0])]
    decided = click_spec(volume, replace(spec or SliceSpec(), plane=plane), backbone)
    stack = SliceStack(volume, decided, patch=backbone.patch)
    last = len(stack) - 1
    return stack, lambda number: number if stack.upright else last - number


def _place(volume: Volume, clicks: Clicks, stack: SliceStack) -> dict[int, Points]:
    """Clicks by slice."""
    if not len(clicks.foreground):
        raise FewshotError("There is no foreground click; click inside the structure at least once.")
    foreground, background = (
        dict.fromkeys(_voxel(volume, point) for point in of) for of in (clicks.foreground, clicks.background)
    )
    if both := foreground.keys() & background.keys():
        raise FewshotError(
            f"Voxel {min(both)} was clicked as foreground and as background; remove one of the two."
        )
    to_native = np.linalg.inv(stack.affine) @ volume.affine
    found: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for kind, points in enumerate((foreground, background)):
        for point in points:
            index, *place = np.rint(apply_affine(to_native, point)).astype(int)
            found.setdefault(int(index), ([], []))[kind].append(np.array(place, float))
    return {
        index: Points(*(np.array(places).reshape(-1, 2) for places in kinds))
        for index, kinds in sorted(found.items())
    }


def _voxel(volume: Volume, point: Sequence[float]) -> Voxel:
    name = volume.name or "the volume"
    try:
        i, j, k = (round(float(value)) for value in point)
    except (TypeError, ValueError, OverflowError):
        raise FewshotError(
            f"The click {point!r} is no voxel of {name}; give three voxel indices (i, j, k)."
        ) from None
    if not all(0 <= value < side for value, side in zip((i, j, k), volume.shape, strict=True)):
        sides = " x ".join(map(str, volume.shape))
        raise FewshotError(
            f"The click ({i}, {j}, {k}) lies outside {name}, which has {sides} voxels; click inside it."
        )
    return i, j, k


def _require_content(stack: SliceStack, placed: dict[int, Points], index_of: Callable[[int], int]) -> None:
    for index, points in placed.items():
        if len(points.foreground) and not _shows(stack, index):
            raise FewshotError(
                f"Slice {index_of(index)} of {stack.volume.name or 'the volume'} shows nothing but air or one grey "
                "value; click on a slice that shows the structure."
            )


def _shows(stack: SliceStack, index: int) -> bool:
    """Whether a slice is not air, as `SliceStack.air` judges, without looking at all others."""
    values = stack.slices(stack.volume.array)[index]
    lowest, highest = normalise(np.array([values.min(), values.max()]), stack.limits)
    return bool(highest - lowest >= VISIBLE)


def _followed(
    sam: Any,
    embeddings: Embeddings,
    known: dict[int, np.ndarray],
    slices: int,
    notes: list[str],
    progress: Progress,
) -> dict[int, np.ndarray]:
    """The object in the other slices, by the memory of a SAM 2 model."""
    memory = {index: mask for index, mask in known.items() if mask.any()}
    if not memory:
        return {}
    found = {}
    tracked = sam.propagate(embeddings.of_slice, range(slices), memory, embeddings.frame, notes=notes)
    for done, each in enumerate(tracked, start=1):
        if each.index not in known and each.presence > 0:
            found[each.index] = each.logits > 0
        progress("clicks", min(done, slices), slices)
    return found


def click_spec(volume: Volume, spec: SliceSpec | None, backbone: Backbone) -> SliceSpec:
    """What a slicing leaves open, decided as predictions do: a small crop is not magnified too much."""
    spec = spec or SliceSpec()
    size = spec.size or backbone.size
    if spec.size is None and backbone.magnification:
        size = min(size, max(SIZES[0], round(backbone.magnification * longest_count(volume, spec.plane))))
    return resolve_spec(replace(spec, size=size), [volume])
