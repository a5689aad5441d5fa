"""Patch features of whole volumes: slices and margins of air are left out, slices run in parallel on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fewshot.features.backbone import Backbone
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceStack
from fewshot.volumes.windows import VISIBLE, normalise

FEATURES_VERSION = 3
"""Raise when the same volume, slicing and weights would give other features than before."""

MARGIN = 1
"""Patches of air kept around what is seen, as context."""

BLACK_PATCHES = 8
"""Side of the black image whose features stand for air, and the least side of the box that is computed."""

THREADS = torch.get_num_threads()
"""Taken once: while slices run in parallel, other threads may see a smaller number."""

MAX_WORKERS = 8
"""Slices at once on a CPU; more would only need more memory."""


def compute_features(
    stack: SliceStack, backbone: Backbone, *, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray]:
    """Patch features of every slice that is not air.

    What lies around the body is air in every slice and would take as long as the body: only the box that holds
    something goes through the backbone. Patches outside get the features of a black image.

    Returns:
        float16 ``[R, h, w, dim]`` and int32 ``[S]``: the row of each slice, -1 for air.
    """
    wanted = np.flatnonzero(~stack.air)
    rows = np.full(len(stack), -1, np.int32)
    rows[wanted] = np.arange(len(wanted))
    features = np.empty((len(wanted), *stack.grid, backbone.dim), np.float16)
    ys, xs = occupied_patches(stack)
    black = torch.zeros(1, BLACK_PATCHES * stack.patch, BLACK_PATCHES * stack.patch)
    features[:] = backbone.features(black).mean((0, 1, 2)).cpu().numpy()
    pixels = tuple(slice(axis.start * stack.patch, axis.stop * stack.patch) for axis in (ys, xs))
    batch = backbone.batch_size((ys.stop - ys.start) * (xs.stop - xs.start) * stack.patch**2)
    progress("features", 0, len(wanted))

    def compute(start: int) -> int:
        chosen = wanted[start : start + batch]
        images = torch.from_numpy(stack.render(chosen.tolist())[:, *pixels])
        features[start : start + len(chosen), ys, xs] = backbone.features(images).cpu().numpy()
        return len(chosen)

    done = 0
    for count in _in_parallel(compute, range(0, len(wanted), batch), on_cpu=backbone.device.type == "cpu"):
        done += count
        progress("features", done, len(wanted))
    return features, rows


def occupied_patches(stack: SliceStack) -> tuple[slice, slice]:
    """Rows and columns of patches outside which every slice is black, with a margin of context."""
    brightest = normalise(stack.slices(stack.volume.array).max(0), stack.limits)
    ys, xs = stack.patch_coordinates()
    return tuple(  # type: ignore[return-value]
        _patches(coordinates[(brightest > VISIBLE).any(axis)], patches)
        for coordinates, axis, patches in zip((ys, xs), (1, 0), stack.grid, strict=True)
    )


def _patches(coordinates: np.ndarray, patches: int) -> slice:
    """The patches that these positions (in patch indices) need, at least ``BLACK_PATCHES`` where there are so many."""
    if not len(coordinates):
        return slice(0, patches)
    first, last = int(np.floor(coordinates[0])) - MARGIN, int(np.ceil(coordinates[-1])) + 1 + MARGIN
    missing = max(0, BLACK_PATCHES - (last - first))
    return slice(max(0, first - (missing + 1) // 2), min(patches, last + (missing + 1) // 2))


def _in_parallel(work: Callable[[int], int], items: Sequence[int], *, on_cpu: bool) -> Iterator[int]:
    """Results in order; on a CPU several slices at once with few threads each, which wastes less than the reverse."""
    threads = THREADS
    workers = min(threads, len(items), MAX_WORKERS) if on_cpu else 1
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    ) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)  # a cancelled caller does not wait for the other slices
            torch.set_num_threads(threads)  # the number is a thread's own with OpenMP, but not in every build
