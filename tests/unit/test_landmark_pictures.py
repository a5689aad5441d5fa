"""Pictures of landmarks: which points are drawn, and where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from fewshot.landmark_pictures import landmark_overlay
from fewshot.pictures import label_colour
from fewshot.volumes import Volume
from tests.unit.landmarks.made import OBLIQUE, at, picture, prediction

SHAPE = (48, 40, 30)


def scan() -> Volume:
    """Noise, in which no colour occurs."""
    return Volume(np.random.default_rng(0).random(SHAPE, np.float32), OBLIQUE, modality="MR", name="scan")


def coloured(path, colour) -> np.ndarray:
    """Pixels (row, column) of a colour, [N, 2]."""
    return np.argwhere(np.abs(imread(path)[..., :3] - to_rgb(colour)).max(axis=-1) < 0.04)


def test_found_points_are_drawn_and_others_only_named(tmp_path):
    image = scan()
    both = prediction(image, a=at(image, 10, 10, 10), b=at(image, 30, 30, 20))
    one = prediction(image, a=at(image, 10, 10, 10), b=None)
    shown = landmark_overlay(image, both, tmp_path / "new" / "both.png", title="scan")
    alone = landmark_overlay(image, one, tmp_path / "one.png")
    for number in (1, 2):
        assert len(coloured(shown, label_colour(number))) > 60
    assert len(coloured(alone, label_colour(1))) > 60
    assert len(coloured(alone, label_colour(2))) == 0


def test_a_point_is_where_it_is_seen(tmp_path):
    """The patient's right is on the left of axial slices, which come first, and the front is up."""
    image = replace(scan(), affine=np.eye(4))
    middles = {}
    for name, voxel in {"left": (8, 20, 15), "right": (40, 20, 15), "front": (24, 36, 15)}.items():
        path = landmark_overlay(image, prediction(image, a=at(image, *voxel)), tmp_path / f"{name}.png")
        width = imread(path).shape[1]
        pixels = coloured(path, label_colour(1))
        middles[name] = np.median(pixels[(pixels[:, 1] < 0.33 * width) & (pixels[:, 0] < 330)], axis=0)
    assert middles["right"][1] + 100 < middles["left"][1]
    assert middles["front"][0] + 60 < middles["left"][0]


def test_truth_is_drawn_in_white(tmp_path):
    image = scan()
    found = prediction(image, a=at(image, 10, 10, 10))
    bare = landmark_overlay(image, found, tmp_path / "bare.png")
    true = landmark_overlay(image, found, tmp_path / "true.png", truth={"a": at(image, 25, 12, 10)})
    assert len(coloured(true, "white")) > len(coloured(bare, "white")) + 60


@pytest.mark.parametrize("count", [0, 1, 60])
def test_however_many_there_are(tmp_path, count):
    image = scan()
    points = {f"landmark {n}": at(image, n % 48, n % 40, n % 30) for n in range(count)}
    path = landmark_overlay(image, prediction(image, **points), tmp_path / "all.png")
    assert imread(path).ndim == 3


def test_a_picture_has_one_panel(tmp_path):
    image = picture()
    path = landmark_overlay(image, prediction(image, apex=(-25.0, -4.0, 0.0)), tmp_path / "xray.png")
    pixels = coloured(path, label_colour(1))
    top, high = 44, 660  # of the panel, whose middle is that of the picture
    row, column = top + high * 4.5 / 20, imread(path).shape[1] / 2 + high * 1.5 * (25.5 / 30 - 0.5)
    np.testing.assert_allclose(np.median(pixels[pixels[:, 0] < top + high], axis=0), (row, column), atol=6)
