"""Pictures and the objects in them, to learn from: drawn shapes, phantoms, and slices of real studies.

Each is an image, float32 ``[S, S]`` in [0, 1], and a map of objects, int16 ``[S, S]``: 0 nothing in particular, n the
n-th object. Real slices without labels are cut into regions of similar grey (Felzenszwalb and Huttenlocher 2004), as
ALPNet does with superpixels (Ouyang et al. 2020).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cc3d
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.segmentation import felzenszwalb

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.phantoms import make_study
from fewshot.volumes import SliceSpec, SliceStack, Volume, read_volume

FIRST_PHANTOM = 1000
"""Phantoms below this number are kept out: the tests and the demo use them."""
SMALLEST, LARGEST = 24, 0.6
"""Objects have at least so many pixels, and cover at most this share of the picture."""
LABELLED = ("mr_heart_lv_sunnybrook", "xray_lungs_montgomery")
"""Data sets whose cases of the backbone's training also lend their labels."""

Pair = tuple[np.ndarray, np.ndarray]


def objects_of(regions: np.ndarray) -> np.ndarray:
    """Connected parts of a label map ``[S, S]`` that are neither tiny nor nearly everything, int16, numbered from 1."""
    parts = cc3d.connected_components(regions.astype(np.uint16), connectivity=4)
    sizes = np.bincount(parts.ravel())
    fits = (sizes >= SMALLEST) & (sizes <= LARGEST * regions.size)
    fits[0] = False
    return np.where(fits, np.cumsum(fits), 0).astype(np.int16)[parts]


def drawn(rng: np.random.Generator, size: int) -> Pair:
    """Smooth random regions and ellipses with random grey values, textures, shading and blur."""
    count = int(rng.integers(3, 9))
    smooth = rng.uniform(6, 40)
    fields = np.stack([gaussian_filter(rng.standard_normal((size, size)), smooth) for _ in range(count)])
    regions = (fields / fields.std((1, 2), keepdims=True) + rng.normal(0, 0.3, (count, 1, 1))).argmax(0)
    ys, xs = np.mgrid[:size, :size]
    for _ in range(int(rng.integers(0, 10))):
        centre, axes = rng.uniform(0, size, 2), rng.uniform(0.015, 0.16, 2) * size
        angle = rng.uniform(0, np.pi)
        along = (xs - centre[1]) * np.cos(angle) + (ys - centre[0]) * np.sin(angle)
        across = (ys - centre[0]) * np.cos(angle) - (xs - centre[1]) * np.sin(angle)
        edge = 1 + 0.35 * fields[0] / fields[0].std()
        count += 1
        regions[(along / axes[0]) ** 2 + (across / axes[1]) ** 2 < edge] = count - 1
    grey = rng.uniform(0.1, 0.95, count)
    image = grey[regions]
    for value in range(count):
        if rng.random() < 0.5:
            texture = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.5, 3))
            image += (regions == value) * texture / texture.std() * rng.uniform(0.01, 0.08)
    image += gaussian_filter(rng.standard_normal((size, size)), size / 5) * size / 5 * rng.uniform(0, 0.4)
    image = gaussian_filter(image, rng.uniform(0.3, 1.8)) + rng.normal(0, rng.uniform(0, 0.05), image.shape)
    return np.clip(image, 0, 1).astype(np.float32), objects_of(regions + 1)


def of_volume(
    volume: Volume, labels: np.ndarray | None, size: int, most: int, rng: np.random.Generator
) -> Iterator[Pair]:
    """Slices of a volume, of every plane if its voxels are nearly cubes; without labels in regions of similar grey."""
    cubes = volume.calibrated and max(volume.spacing) <= 1.6 * min(volume.spacing) and min(volume.shape) > 1
    planes = ("axial", "coronal", "sagittal") if cubes else ("auto",)
    for plane in planes:
        stack = SliceStack(volume, SliceSpec(plane=plane, size=size), patch=8)
        wanted = ~stack.air
        pixels = None if labels is None else stack.to_pixels(labels)
        if pixels is not None:
            wanted &= pixels.any((1, 2))
        indices = np.flatnonzero(wanted)
        for index in rng.permutation(indices)[: -(-most // len(planes))].tolist():
            image = np.zeros((size, size), np.float32)
            shown = stack.render([index])[0]
            image[: shown.shape[0], : shown.shape[1]] = shown
            regions = np.zeros((size, size), np.int32)
            if pixels is not None:
                regions[: shown.shape[0], : shown.shape[1]] = pixels[index]
            else:
                rows, cols = stack.content
                regions[:rows, :cols] = 1 + felzenszwalb(
                    shown[:rows, :cols],
                    scale=float(rng.uniform(30, 400)),
                    sigma=float(rng.uniform(0.6, 1.6)),
                    min_size=60,
                )
            objects = objects_of(regions)
            if objects.any():
                yield image, objects


def phantoms(rng: np.random.Generator, size: int) -> Iterator[Pair]:
    """Slices of made-up abdomens, without end."""
    while True:
        seed = FIRST_PHANTOM + int(rng.integers(1_000_000))
        fine = rng.random() < 0.4
        volume, labels = make_study(
            seed, shape=(168, 140, 60) if fine else (96, 80, 40), noise=float(rng.uniform(5, 30))
        )
        for plane in ("axial", "coronal", "sagittal"):
            stack = SliceStack(volume, SliceSpec(plane=plane, size=size), patch=8)
            pixels = stack.to_pixels(labels)
            for index in rng.permutation(np.flatnonzero(pixels.any((1, 2))))[:8].tolist():
                shown = stack.render([index])[0]
                image, regions = np.zeros((size, size), np.float32), np.zeros((size, size), np.int32)
                image[: shown.shape[0], : shown.shape[1]] = shown
                regions[: shown.shape[0], : shown.shape[1]] = pixels[index]
                yield image, objects_of(regions)


def real(
    root: Path, split: Path, rng: np.random.Generator, size: int, most: int
) -> Iterator[Callable[[], Iterator[Pair]]]:
    """Readers of the studies that trained the backbone; labels of `LABELLED` are used, others have none."""
    groups = json.loads(split.read_text())["pretraining"]
    datasets = {name: Dataset.open(root / name) for name in LABELLED if (root / name).is_dir()}
    for files in groups.values():
        for file in files:
            path = root / file
            dataset = datasets.get(Path(file).parts[0])
            if dataset:
                case = next(
                    (case for case in dataset.cases.values() if case.image.resolve() == path.resolve()), None
                )
                if case and case.label:
                    yield lambda dataset=dataset, case=case: _labelled(dataset, case, size, most, rng)
            yield lambda path=path: of_volume(read_volume(path), None, size, most, rng)


def _labelled(
    dataset: Dataset, case: object, size: int, most: int, rng: np.random.Generator
) -> Iterator[Pair]:
    volume = dataset.volume(case)
    labels, _ = dataset.read_labels(case, volume)
    return of_volume(volume, labels, size, most, rng)


class Pool:
    """Pairs on disk, drawn again and again: images uint8 and objects int16, memory-mapped, by source.

    Args:
        folder: holds ``SOURCE.images.npy`` and ``SOURCE.objects.npy``.
    """

    def __init__(self, folder: Path) -> None:
        self.sources = {
            file.name.partition(".")[0]: (
                np.load(file, mmap_mode="r"),
                np.load(file.with_name(file.name.replace("images", "objects")), mmap_mode="r"),
            )
            for file in sorted(folder.glob("*.images.npy"))
        }
        if not self.sources:
            raise FewshotError(f"There are no pictures in {folder}; make them first.")

    def draw(self, rng: np.random.Generator, weights: dict[str, float]) -> Pair:
        """A pair of a source drawn with these weights."""
        names = list(self.sources)
        share = np.array([weights.get(name, 1.0) for name in names])
        images, objects = self.sources[names[int(rng.choice(len(names), p=share / share.sum()))]]
        index = int(rng.integers(len(images)))
        return images[index].astype(np.float32) / 255, np.asarray(objects[index])


def write_pool(folder: Path, source: str, pairs: Iterator[Pair], count: int) -> int:
    """Keep up to ``count`` pairs; returns how many there were."""
    images, objects = [], []
    for image, of in pairs:
        images.append(np.round(image * 255).astype(np.uint8))
        objects.append(of)
        if len(images) >= count:
            break
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{source}.objects.npy", np.stack(objects))
    np.save(folder / f"{source}.images.npy", np.stack(images))
    return len(images)
