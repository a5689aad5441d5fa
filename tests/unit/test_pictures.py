"""Overlay pictures: what is drawn, where, and in which colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from fewshot.errors import FewshotError
from fewshot.phantoms import ORGANS, make_study
from fewshot.pictures import PALETTE, label_colour, overlay, spread
from fewshot.volumes import Volume

SMALL = (48, 40, 20)


@pytest.fixture(scope="module")
def study() -> tuple[Volume, np.ndarray]:
    return make_study(1, shape=SMALL)


def coloured(path, value: int) -> int:
    """Pixels of the contour colour of a label."""
    distance = np.abs(imread(path)[..., :3] - to_rgb(label_colour(value))).max(axis=-1)
    return int((distance < 0.04).sum())


def test_every_label_is_drawn_in_its_own_colour(study, tmp_path):
    volume, labels = study
    path = overlay(volume, labels, ORGANS, tmp_path / "deep" / "all.png", title="phantom")
    for value in ORGANS.values():
        assert coloured(path, value) > 50


def test_a_label_that_is_not_named_is_not_drawn(study, tmp_path):
    volume, labels = study
    path = overlay(volume, labels, {"liver": ORGANS["liver"]}, tmp_path / "liver.png")
    assert coloured(path, ORGANS["liver"]) > 50
    assert coloured(path, ORGANS["spleen"]) == 0


def test_the_stored_voxel_order_does_not_change_the_picture(tmp_path):
    paths = []
    for codes in ("RAS", "LPS"):
        volume, labels = make_study(1, shape=SMALL, orientation=codes)
        paths.append(overlay(volume, labels, ORGANS, tmp_path / f"{codes}.png"))
    # Nearest neighbours may fall on the other side of a tie after a flip; the picture must not move.
    np.testing.assert_allclose(*(imread(path) for path in paths), atol=1e-6)


def test_patient_right_is_on_the_left(tmp_path):
    volume, labels = make_study(1, shape=SMALL)
    image = imread(overlay(volume, labels, ORGANS, tmp_path / "one.png", slices=1))
    left_panel = image[:, : image.shape[1] // 2]
    distance = np.abs(left_panel[..., :3] - to_rgb(label_colour(ORGANS["kidney_right"]))).max(axis=-1)
    other = np.abs(left_panel[..., :3] - to_rgb(label_colour(ORGANS["kidney_left"]))).max(axis=-1)
    rows = slice(30, -40)  # without title and legend
    assert np.argwhere(distance[rows] < 0.04)[:, 1].mean() < np.argwhere(other[rows] < 0.04)[:, 1].mean()


def test_the_truth_adds_to_the_picture(study, tmp_path):
    volume, labels = study
    shifted = np.roll(labels, 3, axis=0)
    plain = imread(overlay(volume, labels, ORGANS, tmp_path / "plain.png"))
    compared = imread(overlay(volume, labels, ORGANS, tmp_path / "truth.png", truth=shifted))
    assert (compared[..., :3] > 0.97).all(axis=-1).sum() > (plain[..., :3] > 0.97).all(axis=-1).sum() + 100


def test_a_single_slice_and_an_empty_label_map_can_be_drawn(study, tmp_path):
    volume, labels = study
    flat = replace(volume, array=volume.array[..., 10:11].copy())
    assert (
        overlay(flat, np.zeros_like(labels[..., 10:11]), ORGANS, tmp_path / "flat.png").stat().st_size > 5000
    )


def test_labels_of_another_grid_are_refused(study, tmp_path):
    volume, labels = study
    with pytest.raises(FewshotError, match="resample"):
        overlay(volume, labels[1:], ORGANS, tmp_path / "wrong.png")
    assert not (tmp_path / "wrong.png").exists()


def test_many_labels_all_fit_into_the_legend(study, tmp_path):
    volume, labels = study
    few = imread(overlay(volume, labels, ORGANS, tmp_path / "few.png"))
    names = ORGANS | {f"structure {value}": value for value in range(6, 41)}
    many = imread(overlay(volume, labels, names, tmp_path / "many.png", scores={"liver": 0.5}))
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] > few.shape[0] + 40


def test_slices_are_spread_and_all_taken_where_there_are_few():
    assert spread([3, 4], 6) == [3, 4]
    assert spread(range(10, 22), 3) == [12, 16, 20]
    assert [label_colour(value) for value in (1, len(PALETTE) + 1)] == [PALETTE[0]] * 2
