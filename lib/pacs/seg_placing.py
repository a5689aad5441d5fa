"""From the frames of a segmentation to the voxels of an image, by position in space."""

from __future__ import annotations

import numpy as np

from lib.pacs.seg_frames import Frame

SAME_PLANE = 0.01
"""Millimetres between positions of frames that are meant to be one."""
ADJACENT = 1.5
"""Frames farther apart than this many frame distances have something between them that was not drawn."""
TIE = 1e-3
"""Share of a pixel or frame distance: what lies so close to a border counts as on it, whatever was rounded."""
ON_LATTICE = 0.1
"""Voxels by which frames drawn on the image itself may be off its grid."""
CHUNK = 4_000_000
"""Voxels looked at together, which bounds the memory for frames that cross the image obliquely."""


def spans_of(frames: list[Frame], lps: np.ndarray) -> list[tuple[float, float]]:
    """Millimetres below and above each frame's plane that belong to it."""
    spans = [(0.0, 0.0)] * len(frames)
    normals = [tuple(np.round(frame.affine[:3, 2], 3) + 0.0) for frame in frames]
    for normal in set(normals):
        members = [at for at, own in enumerate(normals) if own == normal]
        group = [frames[at] for at in members]
        heights = np.array([frame.affine[:3, 3] @ group[0].affine[:3, 2] for frame in group])
        ordered = np.sort(heights)
        levels = ordered[np.append(True, np.diff(ordered) > SAME_PLANE)]
        gaps = np.diff(levels)
        distance = _distance(group, gaps, lps)
        # voxels exactly between two frames go to the upper one, at an end to none
        end = distance * (0.5 - 2 * TIE)
        halves = np.where(gaps <= ADJACENT * distance, gaps / 2, end)
        below, above = np.append(end, halves), np.append(halves, end)
        for at, level in zip(members, np.searchsorted(levels, heights + SAME_PLANE) - 1, strict=True):
            tie = TIE * distance
            spans[at] = (float(below[level]) + tie, float(above[level]) - tie)
    return spans


def _distance(frames: list[Frame], gaps: np.ndarray, lps: np.ndarray) -> float:
    """Millimetres from frame to frame of one direction, whether or not something is drawn on both."""
    if frames[0].distance:
        return frames[0].distance
    step = float(np.abs(frames[0].affine[:3, 2] @ lps[:3, :3]).max())
    indices = np.linalg.inv(lps) @ np.stack([frame.affine for frame in frames])
    on_lattice = np.abs(indices[:, :3, [0, 1, 3]] - np.rint(indices[:, :3, [0, 1, 3]])).max() < ON_LATTICE
    if on_lattice:  # drawn on the image itself: what lies between the frames was left out
        return step
    known = [float(gaps.min())] if gaps.size else []
    known += [frames[0].thickness] if frames[0].thickness else []
    return min(known, default=step)


def paint(
    labels: np.ndarray, value: int, frame: Frame, span: tuple[float, float], lps: np.ndarray
) -> int | None:
    """Give the voxels whose centres lie in a frame's drawn pixels a value.

    Returns:
        How many they are, None where nothing drawn on the frame lies in the image or at its border.
    """
    to_frame = np.linalg.inv(frame.affine) @ lps
    rows, columns = frame.mask.shape
    below, above = span
    to_image = np.linalg.inv(to_frame)
    low, high = _extent(to_image, (-0.5, columns - 0.5), (-0.5, rows - 0.5), (-below, above))
    first, last = _extent(to_image, (0, columns - 1), (0, rows - 1), (0, 0))
    # a finer grid may end between the image's border and the next voxel's place
    beyond = (np.maximum(high, last + 0.5) <= -0.5 + TIE) | (
        np.minimum(low, first - 0.5) >= np.array(labels.shape) - 0.5 - TIE
    )
    if beyond.any():
        return None
    start = np.clip(np.ceil(low - TIE), 0, None).astype(int)
    stop = np.minimum(np.floor(high + TIE) + 1, labels.shape).astype(int)
    if (stop <= start).any():
        return 0
    painted = 0
    thick = max(1, CHUNK // int(np.prod((stop - start)[1:])))
    for at in range(start[0], stop[0], thick):
        begin = (at, start[1], start[2])
        box = tuple(slice(a, b) for a, b in zip(begin, (min(at + thick, stop[0]), *stop[1:]), strict=True))
        column, row, height = (_along(line, box) for line in to_frame[:3])
        column, row = (np.floor(place + 0.5 + TIE).astype(int) for place in (column, row))
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        inside = inside & (height >= -below) & (height < above)
        taken = inside & frame.mask[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        view = labels[box]
        taken = np.broadcast_to(taken, view.shape)
        view[taken] = value
        painted += int(np.count_nonzero(taken))
    return painted


def _extent(to_image: np.ndarray, *sides: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest voxel index [3] in a box of (column, row, millimetres off the plane)."""
    corners = np.array(np.meshgrid(*sides)).reshape(3, -1)
    ends = (to_image @ np.vstack([corners, np.ones(corners.shape[1])]))[:3]
    return ends.min(axis=1), ends.max(axis=1)


def _along(line: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """One frame coordinate of a box of voxels, with a length of 1 along the axes that do not change it.

    Most frames run along the image's own axes; then nothing is computed voxel by voxel.
    """
    place = np.full((1, 1, 1), line[3])
    for axis, (slope, span) in enumerate(zip(line[:3], box, strict=True)):
        steps = np.arange(
            span.start, span.stop if abs(slope) * (span.stop - span.start) > TIE / 10 else span.start + 1
        )
        place = place + (slope * steps).reshape([-1 if at == axis else 1 for at in range(3)])
    return place


def paint_nearest(labels: np.ndarray, value: int, frame: Frame, lps: np.ndarray) -> int:
    """Give the voxels nearest to a frame's drawn pixels a value: for what lies between all voxels' centres.

    Returns:
        How many pixels have such a voxel.
    """
    row, column = np.nonzero(frame.mask)
    pixels = np.stack([column, row, np.zeros_like(row), np.ones_like(row)])
    nearest = np.rint((np.linalg.inv(lps) @ frame.affine @ pixels)[:3]).astype(int)
    nearest = nearest[:, ((nearest >= 0) & (nearest < np.array(labels.shape)[:, None])).all(axis=0)]
    labels[tuple(nearest)] = value
    return nearest.shape[1]
