"""Templates are found in other patients: by the labels they bring, and by the places they point at."""

import numpy as np
import pytest
import SimpleITK as sitk

from fewshot.atlas import Atlas
from fewshot.atlas.images import affine_of, reduced, to_array, to_image
from fewshot.atlas.registration import Registered, _affine, _distorts, register
from fewshot.atlas.template import frame
from fewshot.volumes import Volume
from fewshot.volumes.windows import normalise, window_limits
from tests.unit.atlas.bodies import (
    SHAPE,
    SPEC,
    atlas_of,
    dense,
    dice,
    other_patient,
    rotation,
    stack_of,
    study,
)


def image_of(volume):
    return to_image(normalise(volume.array, window_limits(volume, SPEC.window)), frame(volume))


def place_error(found, volume, template, points, where):
    """Mean distance in mm between where a query's voxels ``where`` are said to lie in the template and the truth."""
    grid = [
        (np.arange(count) + 0.5) * (high - low) / count - 0.5 + low
        for count, low, high in zip(found.places.shape, found.low, found.high, strict=False)
    ]
    nearest = tuple(np.meshgrid(*[np.round(axis).astype(int) for axis in grid], indexing="ij"))
    index = found.places * np.array(template.shape) - 0.5
    said = index @ template.affine[:3, :3].T + template.affine[:3, 3]
    return np.linalg.norm(said - points[nearest], axis=-1)[where[nearest]].mean()


def labels_by_atlas(atlas, volume):
    located = atlas.locate(stack_of(volume))
    return dense(located.prior([0.0] * len(atlas.radii)), located.stack).argmax(-1)


CASES = {
    "another patient": {},
    "anisotropic": {"shape": (36, 32, 12), "spacing": (2.8, 3.2, 6.0)},
    "oblique": {"turn": rotation(20)},
    "stored otherwise": {"turn": np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0.0]]), "shape": (24, 34, 30)},
}


@pytest.mark.parametrize("case", CASES)
def test_a_template_is_found_in_another_patient(case):
    volume, labels, _ = study()
    query, truth, points = other_patient(**CASES[case])
    atlas = atlas_of(volume, labels)
    located = atlas.locate(stack_of(query))
    ((_, found),) = located.found
    assert 0.7 < found.similarity <= 1
    assert place_error(found, query, volume, points, truth > 0) < 3.0, "less than a voxel"
    brought = dense(located.prior([0.0] * 3), located.stack).argmax(-1)
    # the same places without registration: through the middle of both volumes
    start = Registered(*_start(query, volume))
    plain = dense(_located(located, start).prior([0.0] * 3), located.stack).argmax(-1)
    for label in (1, 2, 3):
        after, before = dice(brought == label, truth == label), dice(plain == label, truth == label)
        assert after > 0.75, label
        assert after > before, label


def _start(query, template):
    index = np.stack(np.meshgrid(*map(np.arange, query.shape), indexing="ij"), axis=-1)
    points = index @ query.affine[:3, :3].T + query.affine[:3, 3]
    inverse = np.linalg.inv(template.affine)
    places = (points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5) / np.array(template.shape)
    return places.astype(np.float32), np.zeros(3, int), np.array(query.shape), 1.0


def _located(located, registered):
    return type(located)(located.stack, [(located.found[0][0], registered)])


def test_the_same_images_give_the_same_map_on_any_number_of_threads():
    volume, labels, _ = study()
    target, query = atlas_of(volume, labels).templates[0].target, image_of(other_patient()[0])
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        results = []
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            results.append(register(query, target))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads, "left as it was"
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(results[0].places, results[1].places)
    assert results[0].similarity == results[1].similarity


def test_templates_in_parallel_and_from_a_file_are_found_alike():
    volume, labels, _ = study()
    second, others, _ = study("second", matrix=rotation(-5), seed=4)
    query = stack_of(other_patient()[0])
    single = atlas_of(volume, labels)
    both = Atlas([*single.templates, *atlas_of(second, others).templates], SPEC.window)
    again = Atlas.from_tensors(both.config(), both.tensors())
    found, refound, alone = both.locate(query), again.locate(query), single.locate(query)
    for one, other in [*zip(found.found, refound.found, strict=True), (found.found[0], alone.found[0])]:
        np.testing.assert_array_equal(one[1].places, other[1].places)
    np.testing.assert_array_equal(found.prior([2.0] * 3).of_slice(9), refound.prior([2.0] * 3).of_slice(9))


def test_pictures_are_registered_in_their_plane():
    def picture(of):
        volume, labels, _ = of
        middle = slice(13, 14)
        affine = np.diag([3.0, 3.0, 1.0, 1.0])
        return Volume(volume.array[:, :, middle], affine, "XR", "picture", calibrated=False), labels[
            :, :, middle
        ]

    volume, labels = picture(study())
    query, truth = picture(study(matrix=rotation(6) * 0.92, shift=(5, -4, 0), warp=1.5, seed=2))
    brought = labels_by_atlas(atlas_of(volume, labels), query)
    for label in np.unique(truth)[1:]:
        assert dice(brought == label, truth == label) > max(0.7, dice(labels == label, truth == label))


def test_nothing_in_common_is_not_found():
    volume, labels, _ = study()
    atlas = atlas_of(volume, labels)
    flat = Volume(np.full(SHAPE, 3.0, np.float32), volume.affine, "MR", "flat")
    noise = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    picture = Volume(volume.array[:, :, 9:10], volume.affine, "MR", "picture")
    sliver = Volume(volume.array[:2, :, 9:11], volume.affine, "MR", "sliver")
    row = Volume(volume.array[:, 9:10, 9:10], volume.affine, "MR", "row")
    for query in (flat, Volume(noise, volume.affine, "MR", "noise"), picture, sliver, row):
        assert atlas.locate(stack_of(query)) is None, query.name
    of_picture = atlas_of(picture, labels[:, :, 9:10])
    assert of_picture.locate(stack_of(volume)) is None
    assert of_picture.locate(stack_of(flat)) is None


@pytest.mark.parametrize("slices", [2, 3, 6])
def test_volumes_of_few_slices_stay_volumes(slices):
    """A thin slab is reduced neither to a picture nor to fewer slices than ITK's filters work on."""
    of = {"shape": (64, 56, slices), "spacing": (1.5, 1.5, 1.0)}
    volume, labels, _ = study(**of)
    query, truth, _ = study(matrix=rotation(6), shift=(5, -3, 0), seed=2, **of)
    template = atlas_of(volume, labels).templates[0]
    assert [array.shape[2] for array, _ in template.images.values()] == [max(slices, 4)] * 2
    brought = labels_by_atlas(Atlas([template], SPEC.window), query)
    assert dice(brought == 1, truth == 1) > dice(labels == 1, truth == 1)
    small = reduced(to_image(np.zeros((300, 300, slices), np.float32), np.diag([1, 1, 0.2, 1.0])))
    assert small.GetSize()[2] == 4


def test_a_label_at_the_edge_of_the_query_keeps_its_registration():
    """The region of the labels is a thin slab of the query there."""
    volume, labels, _ = study()
    query, *_ = study(shift=(0, 0, 33.0), seed=3)
    only = np.where(labels == 1, labels, 0)
    located = atlas_of(volume, only).locate(stack_of(query))
    assert located is not None
    assert dense(located.prior([0.0] * 3), located.stack).shape[:3] == query.shape


def test_a_sheared_volume_is_no_reason_to_fail():
    volume, labels, _ = study()
    sheared = volume.affine.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 0]
    atlas = atlas_of(volume, labels)
    located = atlas.locate(stack_of(Volume(volume.array, sheared, "MR", "sheared")))
    assert located is None or 0 < located.found[0][1].similarity <= 1


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 1)])
def test_images_and_arrays_are_each_others_inverse(shape):
    volume, *_ = study(shape=shape, turn=rotation(20) if shape[2] > 1 else None)
    image = to_image(volume.array, frame(volume))
    assert image.GetDimension() == (3 if shape[2] > 1 else 2)
    np.testing.assert_array_equal(to_array(image), volume.array)
    dimension = image.GetDimension()
    np.testing.assert_allclose(affine_of(image)[:dimension], frame(volume)[:dimension], atol=1e-9)


def test_reducing_keeps_the_extent():
    array = np.random.default_rng(0).uniform(size=(80, 70, 40)).astype(np.float32)
    image = to_image(array, np.diag([1.0, 1.0, 2.0, 1.0]))
    small = reduced(image)
    assert np.prod(small.GetSize()) <= 60_000
    sides = [np.array(of.GetSize()) * of.GetSpacing() for of in (image, small)]
    np.testing.assert_allclose(*sides)
    first = [
        affine_of(of) @ [*(-0.5, -0.5, -0.5), 1] for of in (image, small)
    ]  # the outer corner of the first voxel
    np.testing.assert_allclose(*first, atol=1e-6)


def test_a_map_that_fills_a_field_of_view_is_told_from_one_between_patients():
    query, template = (
        to_image(np.random.default_rng(seed).random((24, 26, 30), np.float32), np.diag([3.0, 3, 3, 1]))
        for seed in (0, 1)
    )
    few = to_image(np.random.default_rng(0).random((24, 26, 8), np.float32), np.diag([3.0, 3, 9, 1]))

    def scaled(factor):
        affine = sitk.AffineTransform(3)
        affine.Scale((1.0, 1.0, factor))
        return affine

    assert not _distorts(scaled(0.8), query, template)
    assert not _distorts(scaled(1.3), query, template)
    assert _distorts(scaled(0.67), query, template)
    assert _distorts(sitk.CompositeTransform([scaled(1.5)]), query, template)
    assert not _distorts(scaled(0.5), few, template), "of few slices nobody can tell"


def test_where_an_affine_map_distorts_a_rigid_one_takes_its_place(monkeypatch):
    monkeypatch.setattr("fewshot.atlas.registration.LEAST_STRETCH", 0.999)
    images = [
        reduced(to_image(normalise(of.array, window_limits(of, "percentile")), frame(of)))
        for of in (other_patient()[0], study()[0])
    ]
    matrix = np.array(sitk.Euler3DTransform(_affine(*images, any_pose=False)).GetMatrix()).reshape(3, 3)
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    assert np.degrees(np.arccos((np.trace(matrix) - 1) / 2)) == pytest.approx(6, abs=4), "the turn is found"
