"""Read label maps and bring them onto the grid of the image they belong to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from fewshot.errors import FewshotError
from fewshot.volumes.nifti import UNPLACED
from fewshot.volumes.raw import Raw, grid_text, read_raw
from fewshot.volumes.volume import Volume, spacing_of

TOLERANCE = 0.1
"""Voxels (of the smallest spacing) by which the corners of two grids may lie apart and be the same."""
OVERLAP = 0.5
"""Share of the smaller of two grids that the other must hold for the one to be the labels of the other."""
AGREEMENT = 0.8
"""Share of either grid that the other must hold where a file gives no position but the origin."""
POINTS = 16
"""Per axis, to measure that share."""
LARGEST = np.iinfo(np.uint16).max


def read_labels(path: Path | str, like: Volume) -> np.ndarray:
    """Read a label map that was drawn on the grid of `like`.

    A map on the same grid in another axis order or direction is reoriented exactly. A grid of the same
    shape is taken as it is where either file does not say where its voxels lie (pictures, bare headers).

    Returns:
        Label values uint16 [X, Y, Z], of the shape of `like`.

    Raises:
        FewshotError: The grid is another one, or the values are no integers from 0 to 65535.
    """
    path = Path(path)
    labels, raw = _read(path)
    exact = _on_same_grid(labels, raw, like)
    if exact is None:
        raise _another_grid(path, labels, raw.affine, like)
    return np.ascontiguousarray(exact)


def place_labels(
    path: Path | str, like: Volume, *, ignored: Collection[int] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a label map from any grid onto that of `like`: as `read_labels`, else by position in space.

    Resampling takes the nearest voxel. It needs two files that say where their voxels lie and of which the
    smaller lies at least half inside the other (nearly all of both, if a grid begins at the origin as where
    no position is known), and it must not lose a label. The server does not resample: what a viewer submits
    on another grid belongs to another image.

    Args:
        path: The label map.
        like: The volume whose grid is wanted.
        ignored: Values that may get lost.

    Returns:
        Label values uint16 [X, Y, Z], of the shape of `like` and in any order of memory, and what had to be
        decided.

    Raises:
        FewshotError: The two grids do not explain each other, a label would vanish, or the values are no
            integers from 0 to 65535.
    """
    path = Path(path)
    labels, raw = _read(path)
    exact = _on_same_grid(labels, raw, like)
    if exact is not None:
        return exact, ()
    if labels.shape == like.shape and UNPLACED in " ".join(like.notes):
        return labels, (f"labels of {path.name} were taken voxel by voxel: the image has no position",)
    if reason := _why_unrelated(labels.shape, raw, like):
        raise _another_grid(path, labels, raw.affine, like, reason)
    resampled = resample_labels(labels, raw.affine, like)
    if lost := sorted(values_in(labels) - values_in(resampled) - {*ignored}):
        many = "values" if len(lost) > 1 else "value"
        reason = f"on the image's grid nothing of the {many} {', '.join(map(str, lost[:5]))} would be left"
        raise _another_grid(path, labels, raw.affine, like, reason)
    return resampled, (
        f"labels of {path.name} were resampled (nearest voxel) from {_grid(labels.shape, raw.affine)} "
        f"to the image's {_grid(like.shape, like.affine)}",
    )


def values_in(labels: np.ndarray) -> set[int]:
    """Values that occur in a label map, background not counted."""
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist()) - {0}


def resample_labels(labels: np.ndarray, affine: np.ndarray, like: Volume) -> np.ndarray:
    """Bring a label map from any grid to that of `like` by position in space, nearest voxel, 0 outside.

    Args:
        labels: Label values [X, Y, Z].
        affine: [4, 4] of the labels, voxel index -> RAS+ millimetres.
        like: The volume whose grid is wanted.

    Returns:
        Label values uint16, of the shape of `like`.
    """
    from scipy.ndimage import affine_transform

    to_labels = np.linalg.inv(affine) @ like.affine
    # grid-constant keeps the outer half of the outermost voxels, which "constant" would cut off
    return np.asarray(
        affine_transform(
            labels.astype(np.uint16, copy=False),
            to_labels[:3, :3],
            offset=to_labels[:3, 3],
            output_shape=like.shape,
            order=0,
            mode="grid-constant",
        )
    )


def _read(path: Path) -> tuple[np.ndarray, Raw]:
    """Label values uint16 [X, Y, Z] in the order of their file, and what else the file says."""
    raw = read_raw(path, labels=True)
    array = raw.array
    if raw.channels:
        if (array[..., :1] != array[..., :3]).any():
            raise FewshotError(
                f"{path} has several values per voxel (colour or overlapping segments); save one label map."
            )
        array = array[..., 0]
    return _as_label_values(path, array), raw


def _on_same_grid(labels: np.ndarray, raw: Raw, like: Volume) -> np.ndarray | None:
    """Labels in the axis order of `like`, None where they lie on another grid."""
    if labels.shape == like.shape and not (raw.placed and like.calibrated):
        return labels
    return _reorient(labels, raw.affine, like)


def _why_unrelated(shape: tuple[int, ...], raw: Raw, like: Volume) -> str:
    """Why a label map cannot be brought to the grid of an image by position in space; "" if it can."""
    if not raw.placed or _is_default(raw.affine):
        return "the label file does not say where its voxels lie"
    if not like.calibrated or UNPLACED in " ".join(like.notes) or _is_default(like.affine):
        return "the image does not say where its voxels lie"
    swapped = sorted(shape) == sorted(like.shape) and shape != like.shape
    if swapped and np.allclose(raw.affine, like.affine, atol=TOLERANCE * min(like.spacing)):
        return "its axes are in another order than its affine says"
    shared = (
        _share_inside(raw.affine, shape, like.affine, like.shape),
        _share_inside(like.affine, like.shape, raw.affine, shape),
    )
    if max(shared) < OVERLAP:
        return f"the two share {max(shared):.0%} of the smaller one's space"
    if min(shared) < AGREEMENT and not (raw.affine[:3, 3].any() and like.affine[:3, 3].any()):
        return (
            "one of them begins at 0, 0, 0 as where no position is known, so it cannot be placed in the other"
        )
    return ""


def _is_default(affine: np.ndarray) -> bool:
    """Whether an affine is what libraries write that know none: 1 mm steps from the origin, in any direction."""
    return bool(np.allclose(np.abs(affine), np.eye(4), atol=1e-6))


def _share_inside(
    affine: np.ndarray, shape: tuple[int, ...], other: np.ndarray, other_shape: tuple[int, ...]
) -> float:
    """Share of the space of one grid of voxels that lies inside another, by a lattice of points."""
    axes = [(np.arange(POINTS) + 0.5) * side / POINTS - 0.5 for side in shape]
    points = np.stack([*(axis.ravel() for axis in np.meshgrid(*axes)), np.ones(POINTS**3)])
    places = (np.linalg.inv(other) @ affine @ points)[:3]
    ends = np.array(other_shape)[:, None] - 0.5
    return float(((places > -0.5) & (places < ends)).all(axis=0).mean())


def _another_grid(
    path: Path, labels: np.ndarray, affine: np.ndarray, like: Volume, reason: str = ""
) -> FewshotError:
    return FewshotError(
        f"{path} lies on another grid ({_grid(labels.shape, affine)}) than the image {like.name} "
        f"({_grid(like.shape, like.affine)}){f', and {reason}' if reason else ''}; save the labels on the grid "
        "of their image."
    )


def _as_label_values(path: Path, array: np.ndarray) -> np.ndarray:
    """Numbers of any type as uint16, where they are label values."""
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise FewshotError(f"{path} has values that are no integers; give a label map, not an image.")
    if array.dtype.kind != "b":
        lowest, highest = array.min(), array.max()
        if lowest < 0 or highest > LARGEST:
            raise FewshotError(
                f"{path} has label values from {lowest:g} to {highest:g}; give values from 0 to {LARGEST}."
            )
    return array.astype(np.uint16)


def _reorient(labels: np.ndarray, affine: np.ndarray, like: Volume) -> np.ndarray | None:
    """Labels in the axis order of `like`, None where they lie on another grid."""
    turn = (np.linalg.inv(like.affine) @ affine)[:3, :3]
    whole = np.rint(turn)
    permutes = (np.abs(whole).sum(axis=0) == 1).all() and (np.abs(whole).sum(axis=1) == 1).all()
    if not permutes or np.abs(turn - whole).max() > TOLERANCE:
        return None
    orientation = nib.io_orientation(
        np.block([[whole, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    )
    turned = apply_orientation(labels, orientation)
    placed = affine @ inv_ornt_aff(orientation, labels.shape)
    if turned.shape != like.shape or not _same_place(placed, like):
        return None
    return turned


def _same_place(affine: np.ndarray, like: Volume) -> bool:
    """Whether all corners of a grid of the shape of `like` lie where those of `like` do."""
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in like.shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm(((affine - like.affine) @ corners)[:3], axis=0)
    return bool(apart.max() <= TOLERANCE * min(like.spacing))


def _grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
    spacing = " x ".join(f"{step:.4g}" for step in spacing_of(affine))
    origin = ", ".join(f"{place:.4g}" for place in affine[:3, 3])
    return f"{grid_text(shape)} voxels of {spacing} mm, first at {origin}"
