"""Read label maps and bring them onto the grid of the image they belong to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from fewshot.errors import FewshotError
from fewshot.volumes.raw import grid_text, read_raw
from fewshot.volumes.volume import Volume, spacing_of

TOLERANCE = 0.1
"""Voxels (of the smallest spacing) by which the corners of two grids may lie apart and be the same."""
LARGEST = np.iinfo(np.uint16).max


def read_labels(path: Path | str, like: Volume) -> np.ndarray:
    """Read a label map onto the grid of `like`.

    A map on the same grid in another axis order or direction is reoriented exactly. A grid of the same
    shape is taken as it is where either file does not say where its voxels lie (pictures, bare headers).

    Returns:
        Label values uint16 [X, Y, Z], of the shape of `like`.

    Raises:
        FewshotError: The grid is another one, or the values are no integers from 0 to 65535.
    """
    path = Path(path)
    raw = read_raw(path, labels=True)
    array = raw.array
    if raw.channels:
        if (array[..., :1] != array[..., :3]).any():
            raise FewshotError(
                f"{path} has several values per voxel (colour or overlapping segments); save one label map."
            )
        array = array[..., 0]
    labels = _as_label_values(path, array)
    if labels.shape == like.shape and not (raw.placed and like.calibrated):
        return labels
    reoriented = _reorient(labels, raw.affine, like)
    if reoriented is None:
        raise FewshotError(
            f"{path} lies on another grid ({_grid(labels.shape, raw.affine)}) than the image {like.name} "
            f"({_grid(like.shape, like.affine)}); save the labels on the grid of their image."
        )
    return reoriented


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
    return np.ascontiguousarray(turned)


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
