"""A spec is decided on the templates and travels with the model."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.volumes import PLANES, WINDOWS, SliceSpec, SliceStack, Volume, acquisition_plane, resolve_spec
from fewshot.volumes.spec import DEFAULT_SIZE


def volume(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    codes: str = "RAS",
    modality: str = "MR",
) -> Volume:
    """A volume whose axes run along the directions of `codes`."""
    orientation = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for axis, (target, sign) in enumerate(orientation.astype(int)):
        affine[target, axis] = sign * spacing[axis]
    affine[3, 3] = 1
    array = np.random.default_rng(0).uniform(-1000, 1000, shape).astype(np.float32)
    return Volume(array, affine, modality)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("window", WINDOWS)
def test_a_spec_survives_json(plane: str, window: str) -> None:
    for size, pixel_mm in [(None, None), (224, 0.7)]:
        spec = SliceSpec(plane, window, size, pixel_mm)
        assert SliceSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"plane": "oblique"}, "plane 'oblique'.*axial"),
        ({"plane": None}, "plane"),
        ({"window": "ct"}, "window 'ct'.*ct-soft"),
        ({"window": ["auto"]}, "window"),
        ({"size": 0}, "size"),
        ({"size": 99999}, "size"),
        ({"size": "448"}, "size"),
        ({"size": 448.0}, "size"),
        ({"size": True}, "size"),
        ({"pixel_mm": 0}, "pixel"),
        ({"pixel_mm": -1.0}, "pixel"),
        ({"pixel_mm": float("inf")}, "pixel"),
        ({"pixel_mm": float("nan")}, "pixel"),
        ({"pixel_mm": "1"}, "pixel"),
        ({"planes": "axial", "colour": 1}, "colour, planes"),
    ],
)
def test_wrong_values_are_refused_with_the_choices(values: dict[str, object], reason: str) -> None:
    with pytest.raises(FewshotError, match=reason):
        SliceSpec.from_dict(values)


@pytest.mark.parametrize(
    ("codes", "spacing", "plane"),
    [
        ("RAS", (1, 1, 5), "axial"),
        ("RAS", (1, 5, 1), "coronal"),
        ("RAS", (5, 1, 1), "sagittal"),
        ("ASL", (1, 1, 5), "sagittal"),
        ("SPR", (1, 5, 1), "coronal"),
        ("LIA", (1, 5, 1), "axial"),
        ("SAR", (1, 1, 1), "axial"),
        ("ASL", (1, 1, 1.2), "axial"),
        ("ASL", (1, 1, 1.31), "sagittal"),
        ("RAS", (3, 1, 3), "axial"),
    ],
)
def test_the_plane_of_acquisition_is_across_the_thick_axis(
    codes: str, spacing: tuple[float, float, float], plane: str
) -> None:
    assert acquisition_plane(volume((8, 9, 10), spacing, codes=codes)) == plane


@pytest.mark.parametrize(
    ("codes", "shape", "plane"),
    [
        ("RAS", (8, 9, 1), "axial"),
        ("RAS", (1, 8, 9), "sagittal"),
        ("RSA", (8, 9, 1), "coronal"),
        ("RAS", (1, 1, 8), "coronal"),
        ("SRA", (8, 1, 1), "coronal"),
        ("RAS", (1, 8, 1), "axial"),
    ],
)
def test_one_slice_is_in_its_own_plane(codes: str, shape: tuple[int, int, int], plane: str) -> None:
    assert acquisition_plane(volume(shape, (1, 4, 1), codes=codes)) == plane


def test_what_is_given_is_kept() -> None:
    spec = SliceSpec("coronal", "ct-bone", 300, 0.77)
    assert resolve_spec(spec, [volume((8, 9, 10), (1, 1, 5))]) == spec


def test_everything_open_is_decided() -> None:
    spec = resolve_spec(SliceSpec(), [volume((100, 80, 10), (1, 1, 5), modality="CT")])
    assert (spec.plane, spec.window, spec.size) == ("axial", "ct-soft", DEFAULT_SIZE)
    assert spec.pixel_mm == pytest.approx(100 / 448, rel=0.045)


@pytest.mark.parametrize("longest", [30.0, 97.0, 250.0, 513.0])
def test_the_median_longest_side_becomes_the_size_within_half_a_step(longest: float) -> None:
    templates = [volume((10, 4, 3), (scale * longest / 10, 1, 9 * scale)) for scale in (0.5, 1, 1.1)]
    spec = resolve_spec(SliceSpec("axial", size=224), templates)
    assert spec.pixel_mm is not None
    assert abs(np.log2(longest / spec.pixel_mm / 224)) <= 1 / 16 + 1e-9
    assert np.log2(spec.pixel_mm) * 8 == pytest.approx(round(np.log2(spec.pixel_mm) * 8), abs=1e-6)


def test_one_more_template_of_about_the_same_size_changes_nothing() -> None:
    templates = [volume((100, 80, 4), (side / 100, 1, 5)) for side in (251, 255, 248, 257)]
    assert len({resolve_spec(SliceSpec(), templates[:count]) for count in (1, 2, 3, 4)}) == 1


def test_templates_that_disagree_are_cut_in_the_plane_of_most_and_a_window_for_all() -> None:
    sagittal, axial = volume((5, 9, 9), (5, 1, 1)), volume((9, 9, 5), (1, 1, 5), modality="CT")
    spec = resolve_spec(SliceSpec(), [axial, sagittal, sagittal])
    assert (spec.plane, spec.window) == ("sagittal", "percentile")


def test_pictures_have_no_pixel_size() -> None:
    picture = Volume(np.zeros((50, 40, 1), np.float32), np.eye(4), "XR", calibrated=False)
    spec = resolve_spec(SliceSpec(), [volume((50, 40, 1), (1, 1, 1)), picture])
    assert spec.pixel_mm is None


def test_no_template_is_refused() -> None:
    with pytest.raises(FewshotError, match="template"):
        resolve_spec(SliceSpec(), [])


def test_the_same_anatomy_has_the_same_size_whatever_the_field_of_view() -> None:
    spec = resolve_spec(SliceSpec(size=224), [volume((100, 100, 5), (1, 1, 4))])
    assert spec.pixel_mm is not None
    for shape, spacing in [((50, 40, 5), (1.0, 1.0, 4.0)), ((300, 200, 5), (0.5, 0.5, 4.0))]:
        rows, cols = SliceStack(volume(shape, spacing), spec, patch=14).content
        assert cols == pytest.approx(shape[0] * spacing[0] / spec.pixel_mm, abs=0.5)
        assert rows == pytest.approx(shape[1] * spacing[1] / spec.pixel_mm, abs=0.5)
