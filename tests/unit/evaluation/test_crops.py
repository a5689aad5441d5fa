"""Crops of the report's pictures: the structure is inside, its outline is that of the voxels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from skimage.draw import polygon2mask

from fewshot.evaluation.crops import CONTEXT, SMALLEST, STRIDE, outline, packed, scale_bar, surroundings


def corners(path: str) -> list[np.ndarray]:
    """The polygons [N, 2] (y, x) of a path of one moveto and relative lines each."""
    found = []
    for start, steps in re.findall(r"M(\d+ \d+)l([-\d ]+)z", path):
        points = np.array([start.split(), *np.array(steps.split()).reshape(-1, 2)], dtype=int)
        found.append(np.cumsum(points, axis=0)[:, ::-1])
    return found


def test_the_outline_encloses_the_mask() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((30, 40), bool)
    mask[5:20, 8:30] = True
    mask[10:14, 15:22] = False
    mask[24:30, 33:40] = True  # at the edge of the picture
    mask[:3] = rng.random((3, 40)) < 0.3
    polygons = corners(outline(mask, (400, 300)))
    filled = np.zeros((300 * STRIDE, 400 * STRIDE), bool)
    for polygon in polygons:
        filled ^= polygon2mask(filled.shape, polygon)
    cell = 10 * STRIDE
    shares = filled.reshape(30, cell, 40, cell).mean(axis=(1, 3))
    assert ((shares > 0.45) == mask).all()  # a lone voxel is drawn as the diamond that half of it fills


def test_an_empty_mask_has_no_outline() -> None:
    assert outline(np.zeros((5, 5), bool), (50, 50)) == ""


def test_a_large_crop_is_thinned_out_but_stays_in_place() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[250:750, 500:] = True
    (polygon,) = corners(outline(mask, (360, 360)))
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    assert low == pytest.approx(np.array([90, 180]) * STRIDE, abs=2 * STRIDE)
    assert high == pytest.approx(np.array([270, 360]) * STRIDE, abs=2 * STRIDE)


@pytest.mark.parametrize("mm", [(1.0, 1.0), (1.0, 3.0)])
def test_the_crop_is_square_and_holds_the_structure_in_its_middle(mm: tuple[float, float]) -> None:
    mask = np.zeros((300, 100), bool)
    mask[120:180, 40:60] = True
    rows, cols = surroundings(mask, mm)
    assert mask[rows, cols].sum() == mask.sum()
    high, wide = (rows.stop - rows.start) * mm[0], (cols.stop - cols.start) * mm[1]
    assert high == pytest.approx(max(CONTEXT * 60, SMALLEST * 300 * max(mm[0], mm[1] / 3)), abs=3)
    assert wide == pytest.approx(min(high, 100 * mm[1]), abs=3)
    assert (rows.start + rows.stop) / 2 == pytest.approx(150, abs=1)


def test_at_the_border_the_crop_moves_inside_and_without_structure_it_is_all() -> None:
    mask = np.zeros((100, 100), bool)
    assert surroundings(mask, (1.0, 1.0)) == (slice(0, 100), slice(0, 100))
    mask[0, 99] = True
    assert surroundings(mask, (1.0, 1.0)) == (slice(0, 30), slice(70, 100))


@pytest.mark.parametrize(("width_mm", "text"), [(200, "50 mm"), (90, "20 mm"), (12, "2 mm"), (0.9, "0.2 mm")])
def test_the_scale_bar_has_a_round_length(width_mm: float, text: str) -> None:
    percent, found = scale_bar(360, 360 / width_mm)
    assert found == text
    assert percent == round(100 * float(text.split()[0]) / width_mm)
    assert 10 <= percent <= 25


def test_the_picture_is_a_data_uri() -> None:
    assert packed(np.linspace(0, 1, 100).reshape(10, 10), (36, 36)).startswith("data:image/webp;base64,")
