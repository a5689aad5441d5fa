"""Made-up CT studies for the demo and the tests: no patient, no licence, the truth known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from fewshot.landmarks.files import write_points
from fewshot.phantoms.anatomy import LANDMARKS, ORGANS, Canvas, Field, Habitus, Point, draw_body
from fewshot.volumes import Volume, write_labels

SIZE_MM = (336.0, 280.0, 240.0)
"""Field of view along right, anterior, superior: the same for every shape."""

ORIENTATIONS = ("RAS", "LAS", "LPS", "RAI")
"""Voxel orders that the studies are stored in by turns: files of different scanners differ so."""

STEPS = 40
"""Of the search for a point in the bent body: each leaves a third of the error or less."""


class Phantom(NamedTuple):
    """A made-up study with all that is true of it.

    Attributes:
        volume: the study.
        labels: uint16 [X, Y, Z], with the values of `ORGANS`.
        landmarks: each of `LANDMARKS` -> where it is, RAS mm, exactly and not to the next voxel.
    """

    volume: Volume
    labels: np.ndarray
    landmarks: dict[str, Point]


def make_study(
    seed: int,
    *,
    shape: tuple[int, int, int] = (96, 80, 40),
    noise: float = 14.0,
    orientation: str | None = None,
) -> tuple[Volume, np.ndarray]:
    """The study and the labels of `make_phantom`, which has the arguments."""
    made = make_phantom(seed, shape=shape, noise=noise, orientation=orientation)
    return made.volume, made.labels


def make_phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = (96, 80, 40),
    noise: float = 14.0,
    orientation: str | None = None,
) -> Phantom:
    """Draw one CT-like abdomen with five organs and five landmarks; the same seed gives the same study.

    Shape, pose, fat, contrast agent and noise differ between seeds. Liver, spleen, kidneys and
    bowel overlap in HU, and every organ but the spine is absent from some slices.

    Args:
        seed: which patient.
        shape: voxels along right, anterior, superior; fewer make a coarser study of the same extent.
        noise: standard deviation of the noise, HU.
        orientation: axis codes of the voxel order, such as "LPS"; None lets the seed decide.
    """
    rng = np.random.default_rng([20250, seed])
    spacing = np.divide(SIZE_MM, shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    edge = float(spacing[0])
    points = _posed_points(shape, affine, rng)
    canvas = Canvas(points, edge=edge, rng=rng)
    fat = rng.uniform(9, 22)
    draw_body(canvas, Habitus(fat=fat, enhancement=rng.uniform(35, 60), gas=rng.uniform(0.15, 0.5)))
    hu = _acquire(canvas.hu, noise, rng)

    codes = orientation or ORIENTATIONS[seed % len(ORIENTATIONS)]
    image = _reorder(hu, affine, codes)
    labels = np.asarray(_reorder(_in_one_piece(canvas.labels), affine, codes).dataobj)
    volume = Volume(
        array=np.asarray(image.dataobj, dtype=np.float32),
        affine=np.asarray(image.affine, dtype=np.float64),
        modality="CT",
        name=f"phantom_{seed:02d}",
        path=None,
        calibrated=True,
        notes=(),
    )
    landmarks = {name: _in_world(canvas.landmarks[name], points, affine) for name in LANDMARKS}
    return Phantom(volume, labels, landmarks)


def write_studies(
    folder: str | Path,
    n: int = 6,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (96, 80, 40),
    landmarks: bool = False,
) -> list[str]:
    """Write studies as a data set folder: ``images/``, ``labels/``, ``dataset.json``, and ``landmarks/`` if wanted.

    Returns:
        The names of the studies, in order.
    """
    folder = Path(folder)
    for part in ("images", "labels", *(["landmarks"] if landmarks else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(seed, seed + n):
        volume, labels, points = make_phantom(number, shape=shape)
        image = nib.Nifti1Image(volume.array.astype(np.int16), volume.affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / "images" / f"{volume.name}.nii.gz")
        write_labels(folder / "labels" / f"{volume.name}.nii.gz", labels, volume)
        if landmarks:
            write_points(folder / "landmarks" / f"{volume.name}.json", points)
        names.append(volume.name)
    description = {
        "name": "phantoms",
        "description": "Made-up CT-like abdomens, drawn by fewshot.phantoms; no patient.",
        "modality": "CT",
        "labels": ORGANS,
        "complete": True,
    }
    if landmarks:
        description["landmarks"] = list(LANDMARKS)
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
    return names


def _posed_points(shape: tuple[int, int, int], affine: np.ndarray, rng: np.random.Generator) -> Field:
    """Voxel centres in the body's frame, [3, X, Y, Z] mm: turned, scaled, shifted and smoothly bent."""
    grid = np.indices(shape, dtype=np.float64).reshape(3, -1)
    world = affine[:3, :3] @ grid + affine[:3, 3:]
    turn = np.radians(rng.uniform(-1, 1, 3) * (2.5, 2.5, 6))
    points = _rotation(turn) @ world / rng.uniform(0.94, 1.05) - rng.uniform(-1, 1, (3, 1)) * [[8], [7], [12]]
    points = points.reshape(3, *shape)
    bend = rng.normal(size=(3, 5, 5, 4)) * 4.5
    zoom = np.divide(shape, bend.shape[1:])
    for axis in range(3):
        points[axis] += ndimage.zoom(bend[axis], zoom, order=3, mode="nearest", grid_mode=True)
    return points.astype(np.float32)


def _in_world(place: Point, points: Field, affine: np.ndarray) -> Point:
    """Where a place of the body is, RAS mm; `points` are the body's coordinates of every voxel, `affine` theirs."""
    voxel = (np.array(points.shape[1:]) - 1) / 2
    for _ in range(STEPS):
        # The pose is nearly the identity, so that what is missing there is nearly what is missing here.
        here = [ndimage.map_coordinates(axis, voxel[:, None], order=1, mode="nearest")[0] for axis in points]
        voxel = voxel + (np.array(place) - here) / np.diag(affine)[:3]
    x, y, z = nib.affines.apply_affine(affine, voxel)
    return float(x), float(y), float(z)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix about x, then y, then z; angles in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _in_one_piece(labels: np.ndarray) -> np.ndarray:
    """Every organ without the crumbs that its neighbours, painted later, cut off."""
    whole = np.zeros_like(labels)
    for value in ORGANS.values():
        pieces, _ = ndimage.label(labels == value)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.size:
            whole[pieces == sizes.argmax() + 1] = value
    return whole


def _acquire(hu: Field, noise: float, rng: np.random.Generator) -> Field:
    """What the scanner adds: uneven calibration, and noise with the grain of a filter kernel."""
    bias = ndimage.zoom(
        rng.normal(size=(3, 3, 3)), np.divide(hu.shape, 3), order=3, mode="nearest", grid_mode=True
    )
    grain = ndimage.gaussian_filter(rng.normal(size=hu.shape), (0.55, 0.55, 0))
    grain *= noise / grain.std()
    measured = (hu + 1000) * (1 + 0.008 * bias) - 1000 + grain
    return np.asarray(np.clip(np.rint(measured), -1024, 3071), dtype=np.float32)


def _reorder(array: np.ndarray, affine: np.ndarray, codes: str) -> nib.Nifti1Image:
    """The same study with its voxels stored in another order; every voxel keeps its place in the world."""
    source = nib.orientations.axcodes2ornt("RAS")
    change = nib.orientations.ornt_transform(source, nib.orientations.axcodes2ornt(codes))
    image: nib.Nifti1Image = nib.Nifti1Image(array, affine, dtype=array.dtype).as_reoriented(change)
    return image
