"""From templates to landmarks, the whole road: in any pose, on any grid, from several templates, and by components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter

from fewshot.landmarks import LandmarkModel, LandmarkPrediction, LandmarkTemplate, Mark, find_landmarks
from fewshot.landmarks.template import inside
from fewshot.volumes import Volume
from tests.unit.landmarks.textured import POINTS, body, picture, rotation, template, truth

COULD_NOT = "could not be registered"
POSE, SHIFT = rotation(150, (1, 2, 0.5)), (12.0, -9.0, 15.0)


@pytest.fixture(scope="module")
def find(embedded, shared_bank):
    def find(volume: Volume, model: LandmarkModel) -> LandmarkPrediction:
        return find_landmarks(volume, model, backbone=embedded, bank=shared_bank)

    return find


def errors(found: LandmarkPrediction, wanted: Mapping[str, Sequence[float]]) -> np.ndarray:
    """mm, of all landmarks that are wanted; infinite where one was not found."""
    return np.array(
        [
            np.linalg.norm(np.subtract(found.points[name], place)) if name in found.points else np.inf
            for name, place in wanted.items()
        ]
    )


def turned_body() -> Volume:
    """In another pose, on a grid of other axes and spacing."""
    return body(
        POSE,
        SHIFT,
        shape=(52, 40, 30),
        spacing=(1.7, 2.1, 2.9),
        turn=rotation(35, (1, -1, 2)),
        at=SHIFT,
        seed=3,
    )


@pytest.fixture(scope="module")
def found(find, fitted) -> LandmarkPrediction:
    return find(turned_body(), fitted)


def test_a_body_in_another_pose_on_another_grid(found, fitted):
    wanted = truth(POSE, SHIFT)
    assert errors(found, wanted).mean() < 2, "mm, a voxel of the template"
    assert errors(found, wanted).max() < 4
    for name, of in found.landmarks.items():
        assert of.candidates[0].point == of.point, name
        assert 0.5 < of.confidence <= 1
        assert of.reason == ""
    assert list(found.landmarks) == list(POINTS) == fitted.names
    assert not found.notes


def test_the_result_says_what_it_is(found, fitted, embedded):
    assert found.provenance["model"] == fitted.digest
    assert found.provenance["templates"] == ["body"]
    assert found.provenance["backbone"]["name"] == embedded.name
    stages = {name: value for name, value in found.timings.items() if name != "total"}
    assert found.timings["total"] == pytest.approx(sum(stages.values()))
    assert {"register", "match"} <= set(stages)
    np.testing.assert_array_equal(found.affine, turned_body().affine)


def test_how_the_voxels_are_stored_does_not_matter(find, fitted, found):
    volume = turned_body()
    array, affine = volume.array.transpose(2, 0, 1)[::-1], volume.affine[:, [2, 0, 1, 3]]
    affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
    affine[:3, 0] *= -1
    stored = replace(volume, array=np.ascontiguousarray(array), affine=affine)
    assert errors(find(stored, fitted), found.points).max() < 0.1


def test_a_landmark_turned_by_90_degrees_is_found_where_it_was_turned_to(find, fitted):
    pose, shift = rotation(90), (3.0, -2.0, 4.0)
    wanted = truth(pose, shift)
    off = errors(find(body(pose, shift, shape=(44, 44, 40), seed=8), fitted), wanted)
    assert off.mean() < 2
    assert off.max() < 4


def test_slices_may_be_few_and_far_apart(find, fit):
    grid, shift = {"shape": (40, 34, 6), "spacing": (2, 2, 9)}, (3.0, 1.0, 2.0)
    model = fit(template(body(**grid)))
    assert errors(find(body(shift=shift, seed=9, **grid), model), truth(None, shift)).max() < 5


def part(low: int, high: int) -> Volume:
    """Of the body, voxels along its long axis."""
    whole = body(seed=4)
    affine = whole.affine.copy()
    affine[:3, 3] = apply_affine(affine, [low, 0, 0])
    return Volume(whole.array[low:high].copy(), affine, "MR", "part")


@pytest.mark.parametrize(
    ("low", "high", "gone", "there"),
    [
        (0, 32, ["tip"], ["root", "left", "right", "top"]),
        (14, 40, ["root"], ["tip", "left", "right", "core"]),
    ],
)
def test_a_part_of_the_body_lacks_some_landmarks_and_says_so(find, fitted, low, high, gone, there):
    volume = part(low, high)
    result = find(volume, fitted)
    for name in gone:
        of = result.landmarks[name]
        assert not inside(volume, POINTS[name])
        assert not of.found
        assert of.point is None
        assert "outside" in of.reason
        assert name not in result.points
        assert result.to_json()["landmarks"][name]["reason"] == of.reason
    assert errors(result, {name: POINTS[name] for name in there}).max() < 3


# images without the body


def test_a_constant_image_has_nothing_and_says_why(find, fitted):
    result = find(Volume(np.full((20, 18, 16), 7, np.float32), np.eye(4), "MR", "flat"), fitted)
    assert result.points == {}
    assert all(of.reason for of in result.landmarks.values())
    assert any("constant or all air" in note for note in result.notes)


@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_noise_is_not_taken_for_the_body(find, fitted, smooth):
    noise = np.random.default_rng(0).standard_normal((24, 22, 20))
    noise = gaussian_filter(noise, smooth) if smooth else noise
    volume = Volume((100 + 50 * noise / noise.std()).astype(np.float32), body().affine, "MR", "noise")
    result = find(volume, fitted)
    assert len(result.points) < (len(POINTS) if smooth else 1), "smooth noise can be bent into anything"
    assert all(of.confidence < 0.5 or of.reason for of in result.landmarks.values())


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 20, 16), (30, 20, 1), (1, 1, 1)])
def test_an_image_too_small_or_flat_for_registration_is_no_error(find, fitted, shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    result = find(Volume(image, np.eye(4), "MR", "tiny"), fitted)
    assert list(result.landmarks) == list(POINTS)
    assert all(inside(Volume(image, np.eye(4)), point) for point in result.points.values())


# pictures


@pytest.fixture(scope="module")
def of_pictures(fit) -> LandmarkModel:
    image, places = picture()
    return fit(LandmarkTemplate(image, {name: Mark(place) for name, place in places.items()}))


@pytest.mark.parametrize("angle", [0, 90, 200])
def test_a_picture_that_was_turned(find, of_pictures, angle):
    image, places = picture(angle, (3, -2), seed=5)
    result = find(image, of_pictures)
    assert errors(result, places).max() < 1, "pixel"
    assert not result.calibrated
    assert all(point[2] == 0 for point in result.points.values())


@pytest.mark.parametrize(("angle", "by_appearance"), [(0, True), (90, False)])
def test_most_templates_say_whether_a_picture_is_turned(find, fit, angle, by_appearance):
    """By one template of three the first picture is turned, and it may as well be wrong."""
    pictures = [picture(0), picture(0, (3, 1), seed=2), picture(90, seed=3)]
    marks = [{name: Mark(place) for name, place in places.items()} for _, places in pictures]
    model = fit(*(LandmarkTemplate(image, of) for (image, _), of in zip(pictures, marks, strict=True)))
    image, places = picture(angle, (3, -2), seed=5)
    result = find(image, model)
    assert ("adapter" in result.timings) == by_appearance
    assert errors(result, places).max() < 3, "pixels"


STORED = {
    "columns from right to left": lambda array, affine: (array[::-1], affine @ _flip(0, array.shape[0])),
    "rows upwards": lambda array, affine: (array[:, ::-1], affine @ _flip(1, array.shape[1])),
    "rows as columns": lambda array, affine: (array.swapaxes(0, 1), affine[:, [1, 0, 2, 3]]),
    "across the first axis": lambda array, affine: (np.moveaxis(array, 2, 0), affine[:, [2, 0, 1, 3]]),
}


def _flip(axis: int, count: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, count - 1
    return matrix


@pytest.mark.parametrize("how", STORED)
def test_how_a_picture_is_stored_does_not_matter(find, of_pictures, how):
    image, places = picture(0, (3, -2), seed=5)
    array, affine = STORED[how](image.array, image.affine)
    stored = replace(image, array=np.ascontiguousarray(array), affine=affine)
    result = find(stored, of_pictures)
    assert errors(result, places).max() < 1, "pixel"
    assert result.shape == stored.shape
    np.testing.assert_array_equal(result.affine, affine)


@pytest.mark.parametrize("across", ["x", "y"])
def test_a_slice_may_lie_across_any_axis(find, fit, across):
    turn = {"x": [2, 0, 1], "y": [0, 2, 1]}[across]

    def slice_of(seed: int, shift: tuple[float, float]) -> tuple[Volume, dict[str, np.ndarray]]:
        image, places = picture(0, shift, seed=seed)
        turned = {name: np.array(place)[turn] for name, place in places.items()}
        array = np.ascontiguousarray(image.array.transpose(turn))
        return replace(
            image, array=array, affine=np.diag([*np.array([-1.0, -1, 1])[turn], 1]), calibrated=True
        ), turned

    first, places = slice_of(1, (0, 0))
    model = fit(LandmarkTemplate(first, {name: Mark(tuple(place)) for name, place in places.items()}))
    second, wanted = slice_of(2, (2, -3))
    assert errors(find(second, model), wanted).max() < 1


@pytest.mark.parametrize("side", [96, 160])
def test_pixels_of_a_picture_may_be_finer_where_nobody_knows_their_size(find, of_pictures, side):
    image, places = picture(0, (3, -2), side=side, seed=5)
    assert errors(find(image, of_pictures), places).max() < 0.03 * side


def test_templates_of_other_resolutions_are_one_model(find, fit):
    pictures = [picture(seed=1, name="a"), picture(side=128, seed=2, name="b")]
    model = fit(
        *(
            LandmarkTemplate(image, {name: Mark(place) for name, place in places.items()})
            for image, places in pictures
        )
    )
    image, wanted = picture(0, (3, -2), side=96, seed=5)
    assert errors(find(image, model), wanted).max() < 2


def test_templates_that_have_different_landmarks(find, fit):
    (first, places), (second, turned) = picture(seed=1, name="a"), picture(130, (2, 3), seed=2, name="b")
    model = fit(
        LandmarkTemplate(first, {name: Mark(places[name]) for name in ("tip", "root", "left")}),
        LandmarkTemplate(
            second, {name: Mark(turned[name]) for name in ("right", "root")}, absent=frozenset({"tip"})
        ),
    )
    assert model.names == ["tip", "root", "left", "right"]
    assert model.templates == ["a", "b"]
    image, wanted = picture(70, (-3, 1), seed=4)
    assert errors(find(image, model), wanted).max() < 1.5, "pixels"


def test_what_cannot_be_registered_has_no_landmark_but_candidates(find, of_pictures):
    result = find(body(shape=(20, 18, 6), spacing=(4, 4, 9)), of_pictures)
    assert any(COULD_NOT in note for note in result.notes)
    assert list(result.landmarks) == of_pictures.names
    assert not result.points
    assert any(of.candidates for of in result.landmarks.values())
    assert all(COULD_NOT in of.reason for of in result.landmarks.values())


# by components, as in the paper


def test_the_contrastive_adapter_finds_landmarks_by_components(find, fit):
    model = fit(template(), method="contrastive", options={"epochs": 8})
    assert not model.remembered
    pose, shift = rotation(8), (3.0, 2.0, -2.0)
    result = find(body(pose, shift, seed=7), model)
    assert errors(result, truth(pose, shift)).mean() < 5, "mm; boxes are three voxels wide"
    assert result.provenance["method"] == "contrastive"
    assert {"features", "adapter", "components"} <= set(result.timings)
    for of in result.landmarks.values():
        assert 0 < of.confidence <= 1
        assert len({place.point for place in of.candidates}) == len(of.candidates)
