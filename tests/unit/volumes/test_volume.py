"""A volume says what it holds, once and for all."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.volumes import Volume, modality_of

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
AFFINE = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])


def test_spacing_is_along_the_array_axes() -> None:
    assert Volume(ARRAY, AFFINE).spacing == (3.0, 2.0, 4.0)


def test_digest_is_of_voxels_and_place_only() -> None:
    digest = Volume(ARRAY, AFFINE, name="a").digest
    assert Volume(np.asfortranarray(ARRAY), AFFINE.copy(), name="b", modality="CT").digest == digest
    assert (
        Volume(ARRAY + 0.0, AFFINE * [[1, 1, 1, 1], [1, -1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]).digest
        == digest
    )


@pytest.mark.parametrize("change", ["value", "shape", "affine"])
def test_digest_changes_with_everything_that_makes_another_image(change: str) -> None:
    array, affine = ARRAY.copy(), AFFINE.copy()
    if change == "value":
        array[1, 2, 3] += 1e-5 * array[1, 2, 3]
    elif change == "shape":
        array = array.reshape(2, 4, 3)
    else:
        affine[0, 3] += 0.01
    assert Volume(array, affine).digest != Volume(ARRAY, AFFINE).digest


@pytest.mark.parametrize(
    ("array", "affine", "reason"),
    [
        (ARRAY[0], AFFINE, "three axes"),
        (ARRAY[:, :0], AFFINE, "none empty"),
        (ARRAY, np.diag([1.0, 0, 1, 1]), "affine"),
        (ARRAY, np.ones((4, 4)), "affine"),
        (ARRAY, np.full((4, 4), np.nan), "affine"),
        (ARRAY, np.eye(3), "affine"),
    ],
)
def test_what_is_no_volume_is_refused(array: np.ndarray, affine: np.ndarray, reason: str) -> None:
    with pytest.raises(FewshotError, match=reason):
        Volume(array, affine, name="case")


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("CT", "CT"),
        ("mr", "MR"),
        ("MRI", "MR"),
        ("MR T1w (cropped)", "MR"),
        ("CR/DX frontal", "XR"),
        ("DX", "XR"),
        ("chest X-ray", "XR"),
        ("T1 MR crops", "MR"),
        ("micro-CT", "CT"),
        ("US", ""),
        ("", ""),
    ],
)
def test_modality_by_the_names_that_data_sets_use(text: str, modality: str) -> None:
    assert modality_of(text) == modality
