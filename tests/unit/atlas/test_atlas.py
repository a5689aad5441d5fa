"""What templates say about places: maps of labels, brought to a grid, joined over templates, kept in a file."""

import zlib

import numpy as np
import pytest
import torch

from fewshot.atlas import Atlas
from fewshot.atlas.atlas import Located
from fewshot.atlas.moving import interpolated, moved
from fewshot.atlas.registration import Registered
from fewshot.volumes import Volume
from tests.unit.atlas.bodies import SPEC, atlas_of, dense, dice, rotation, stack_of, study, template

SHARP = [0.0, 0.0, 0.0]


def identity(shape, points=None):
    """A map that moves nothing, known at so many points along each axis."""
    grid = [(np.arange(count) + 0.5) / count for count in (points or shape)]
    places = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).astype(np.float32)
    return Registered(places, np.zeros(3, int), np.array(shape), 1.0)


def located(volume, *pairs):
    return Located(stack_of(volume), list(pairs))


def one_hot(classes, labels=3):
    return np.stack([classes == k for k in range(labels + 1)], axis=-1).astype(np.float32)


@pytest.mark.parametrize("turn", [np.eye(3), np.diag([-1.0, 1, -1]), np.eye(3)[[2, 0, 1]], rotation(20)])
def test_in_its_own_place_a_complete_template_is_its_label_map(turn):
    volume, labels, _ = study(turn=turn, shape=(70, 20, 18))
    result = dense(atlas_of(volume, labels).in_place(stack_of(volume)).prior(SHARP), stack_of(volume))
    np.testing.assert_allclose(result, one_hot(labels), atol=2e-3)


def test_labels_up_to_the_border_lose_nothing_there():
    """Rounding must not push the outermost voxels out of the map."""
    volume, labels, _ = study(shape=(37, 29, 23))
    labels[:] = 0
    labels[0], labels[-1] = 1, 2
    labels[1:-1, :, -1] = 3
    result = dense(atlas_of(volume, labels).in_place(stack_of(volume)).prior(SHARP), stack_of(volume))
    np.testing.assert_allclose(result, one_hot(labels), atol=2e-3)
    labels[:] = 1
    result = dense(atlas_of(volume, labels).in_place(stack_of(volume)).prior(SHARP), stack_of(volume))
    np.testing.assert_allclose(result[..., 1], 1, atol=2e-3)


@pytest.mark.parametrize("points", [(4, 4, 4), (6, 5, 3), (40, 36, 30)])
def test_a_label_of_one_voxel_is_not_lost_between_the_points_of_a_coarse_map(points):
    volume, labels, _ = study(shape=(40, 36, 30))
    corners = [(0, 0, 0), (39, 35, 29), (13, 22, 17)]
    labels[:] = 0
    for label, place in enumerate(corners, start=1):
        labels[place] = label
    of = template(volume, labels)
    result = dense(located(volume, (of, identity(volume.shape, points))).prior(SHARP), stack_of(volume))
    for label, place in enumerate(corners, start=1):
        assert result[(*place, label)] == pytest.approx(1, abs=5e-3)
        assert result[..., label].sum() == pytest.approx(1, abs=2e-2)
    blurred = dense(located(volume, (of, identity(volume.shape, points))).prior([4.0] * 3), stack_of(volume))
    assert np.unravel_index(blurred[..., 3].argmax(), volume.shape) == corners[2]
    assert blurred[..., 3].sum() == pytest.approx(1, rel=0.05)


def test_blocks_of_a_large_map_fit_together(monkeypatch):
    volume, labels, _ = study()
    of = template(volume, labels)
    whole = moved(of.map_of(1, 3.0), of.classes.shape, identity(volume.shape, (9, 8, 7)))
    monkeypatch.setattr("fewshot.atlas.moving.BLOCK", 500)
    blocks = moved(of.map_of(1, 3.0), of.classes.shape, identity(volume.shape, (9, 8, 7)))
    assert whole[0] == blocks[0]
    np.testing.assert_array_equal(whole[1], blocks[1])


def test_a_map_beside_the_query_is_nowhere():
    volume, labels, _ = study()
    of = template(volume, labels)
    away = identity(volume.shape)
    away = Registered(away.places + 3, away.low, away.high, 1.0)
    assert moved(of.map_of(1, 0.0), of.classes.shape, away) is None
    result = dense(located(volume, (of, away)).prior(SHARP), stack_of(volume))
    np.testing.assert_array_equal(result[..., 0], 1)


def test_positions_between_and_beyond_points_follow_straight_lines():
    grid = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in (3, 4, 2)], indexing="ij"), axis=-1)
    axes = [np.array([-0.5, 0.25, 2.5]), np.array([1.5]), np.array([-1.0, 0.5, 2.0])]
    result = interpolated(grid, axes)
    np.testing.assert_allclose(result, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), atol=1e-6)
    flat = interpolated(np.full((1, 1, 1, 2), 5.0), [np.array([-0.5, 0.0, 0.5])] * 3)
    np.testing.assert_array_equal(flat, np.full((3, 3, 3, 2), 5.0))


def test_templates_are_averaged_where_they_drew_a_label():
    volume, labels, _ = study()
    here = identity(volume.shape)
    all_three = template(volume, labels)
    shifted = template(volume, np.roll(labels, 2, axis=0))
    first_only = template(volume, np.where(labels == 1, 1, 0), drawn=[True, False, False])
    absent = template(volume, np.where(labels == 2, 0, labels))  # complete: looked for, not there
    half = dense(located(volume, (all_three, here), (shifted, here)).prior(SHARP), stack_of(volume))
    expected = (one_hot(labels) + one_hot(np.roll(labels, 2, axis=0))) / 2
    np.testing.assert_allclose(half, expected, atol=2e-3)
    skipped = dense(located(volume, (all_three, here), (first_only, here)).prior(SHARP), stack_of(volume))
    np.testing.assert_allclose(skipped, one_hot(labels), atol=2e-3)
    missing = dense(located(volume, (all_three, here), (absent, here)).prior(SHARP), stack_of(volume))
    np.testing.assert_allclose(missing[labels == 2, 2], 0.5, atol=2e-3)


def test_a_label_that_no_located_template_drew_is_neither_forbidden_nor_everywhere():
    volume, labels, _ = study()
    of = template(volume, np.where(labels == 1, 1, 0), drawn=[True, False, False])
    result = dense(located(volume, (of, identity(volume.shape))).prior(SHARP), stack_of(volume))
    outside = result[labels != 1]
    np.testing.assert_allclose(outside[:, 2], outside[:, 0], rtol=1e-5)
    assert outside[:, 2].min() > 0.2
    np.testing.assert_allclose(result[labels == 1, 1], 1, atol=2e-3)
    absent = template(volume, np.where(labels == 1, 1, 0))  # complete: it was looked for and was not there
    result = dense(located(volume, (absent, identity(volume.shape))).prior(SHARP), stack_of(volume))
    assert not result[..., 2:].any()


@pytest.mark.parametrize("turn", [np.eye(3), np.diag([1.0, 1, -1]), np.eye(3)[[2, 0, 1]]])
def test_a_partial_template_is_completed_along_its_slices(turn):
    volume, labels, _ = study(turn=turn, shape=(24, 24, 24))
    stack = stack_of(volume)
    slices = stack.slices(labels)
    known = np.zeros(len(stack), bool)
    known[np.flatnonzero((slices == 1).any((1, 2)))[[0, 3, -1]]] = True
    partial = stack.restore(np.where(known[:, None, None], slices, 0).astype(np.uint16))
    along = known if stack.upright else known[::-1]
    of = template(volume, partial, labelled=along, drawn=[True, False, False])
    result = dense(located(volume, (of, identity(volume.shape))).prior(SHARP), stack)
    assert dice(result[..., 1] > 0.5, labels == 1) > 0.8
    assert dice(partial == 1, labels == 1) < 0.5


def test_blur_is_in_millimetres_and_keeps_the_mass():
    volume, labels, _ = study(shape=(34, 30, 20), spacing=(2.0, 2.0, 5.0))
    labels[:] = 0
    labels[17, 15, 10] = 1
    first, soft = template(volume, labels).map_of(1, 4.0)
    assert soft.sum() == pytest.approx(1, rel=0.02)
    index = np.stack(np.indices(soft.shape), axis=-1).reshape(-1, 3) + first
    mean = (index * soft.reshape(-1, 1)).sum(0)
    deviation = np.sqrt(((index - mean) ** 2 * soft.reshape(-1, 1)).sum(0)) * volume.spacing
    np.testing.assert_allclose(mean, [17, 15, 10], atol=1e-3)
    np.testing.assert_allclose(deviation, 4.0, rtol=0.1)


def test_a_blurred_label_at_the_border_goes_on_beyond_it():
    volume, labels, _ = study()
    labels[:] = 0
    labels[:6] = 1
    _, soft = template(volume, labels).map_of(1, 6.0)
    assert soft[0].min() > 0.99


def test_radii_are_those_of_balls_and_of_discs():
    volume, labels, _ = study()
    of = template(volume, np.where(labels == 3, 0, labels))
    assert of.radii[0] == pytest.approx(np.cbrt(14 * 16 * 13), rel=0.03)
    assert np.isnan(of.radii[2])
    assert of.map_of(3, 1.0) is None
    flat = Volume(volume.array[:, :, 13:14], np.diag([3, 3, 50.0, 1]), "XR", "picture")
    disc = template(flat, labels[:, :, 13:14])
    assert disc.radii[0] == pytest.approx(np.sqrt((labels[:, :, 13] == 1).sum() * 9 / np.pi))
    second = template(volume, np.where(labels == 1, 1, 0))
    both = Atlas([of, second], SPEC.window)
    np.testing.assert_allclose(both.radii, [of.radii[0], of.radii[1], np.nan])


def test_the_region_of_the_labels_holds_them_with_their_surroundings():
    volume, labels, _ = study(shape=(60, 50, 40), spacing=(1.5, 1.7, 2.0))
    of = template(volume, np.where(labels == 3, 3, 0))
    array, affine = of.images["focus"]
    corner = affine @ [0, 0, 0, 1]
    sides = np.array(array.shape) * np.linalg.norm(affine[:3, :3], axis=0)
    voxels = np.argwhere(labels == 3) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    margin = of.radii[2] * 0.9
    assert (corner[:3] < voxels.min(0) - margin + 2).all()
    assert (corner[:3] + sides > voxels.max(0) + margin).all()
    assert (sides < 0.7 * np.array(volume.shape) * volume.spacing).all()
    empty = template(volume, np.zeros_like(labels))
    assert np.shape(empty.images["focus"][0]) == np.shape(empty.images["whole"][0])


@pytest.fixture(scope="module")
def kept():
    volume, labels, _ = study()
    partial = np.where(np.arange(24) % 4 == 0, labels, 0)
    some = template(volume, partial, labelled=partial.any((0, 1)), drawn=[True, True, False])
    atlas = Atlas([template(volume, labels), some], SPEC.window)
    return atlas, atlas.config(), atlas.tensors()


def test_tensors_and_config_are_the_atlas(kept):
    atlas, config, tensors = kept
    again = Atlas.from_tensors(config, tensors)
    assert again.window == atlas.window
    for one, other in zip(atlas.templates, again.templates, strict=True):
        for name in ("classes", "labelled", "drawn"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.spacing, one.axis) == (other.spacing, other.axis)
        for part in one.images:
            for a, b in zip(one.images[part], other.images[part], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
    assert config == again.config()
    packed = tensors["atlas.0.classes"]
    assert packed.numel() < atlas.templates[0].classes.nbytes / 5


def flat_image(tensors):
    tensors["atlas.1.whole.image"] = torch.zeros(5)


def too_short(tensors):
    tensors["atlas.0.classes"] = torch.frombuffer(bytearray(zlib.compress(b"abcd")), dtype=torch.uint8)


def cut(tensors):
    tensors["atlas.0.classes"] = tensors["atlas.0.classes"][:20]


def too_few_slices(tensors):
    tensors["atlas.1.labelled"] = tensors["atlas.1.labelled"][:-1]


def other_labels(tensors):
    tensors["atlas.0.drawn"] = torch.ones(7, dtype=torch.bool)


def label_unknown(tensors):
    classes = np.full((34, 30, 24), 9, np.uint16)
    tensors["atlas.0.classes"] = torch.frombuffer(
        bytearray(zlib.compress(classes.tobytes())), dtype=torch.uint8
    )


def singular(tensors):
    tensors["atlas.0.focus.affine"] = torch.zeros(4, 4, dtype=torch.float64)


def missing(tensors):
    del tensors["atlas.1.drawn"]


DAMAGES = [flat_image, too_short, cut, too_few_slices, other_labels, label_unknown, singular, missing]


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensors_that_do_not_fit_are_refused(kept, damage):
    _, config, tensors = kept
    tensors = dict(tensors)
    damage(tensors)
    with pytest.raises((KeyError, ValueError, zlib.error)):
        Atlas.from_tensors(config, tensors)


@pytest.mark.parametrize("changes", [{"window": "magic"}, {"templates": []}])
def test_a_config_that_cannot_be_used_is_refused(kept, changes):
    _, config, tensors = kept
    with pytest.raises((KeyError, ValueError)):
        Atlas.from_tensors(config | changes, tensors)
    spoiled = [config["templates"][0] | {"axis": 5}, config["templates"][1]]
    with pytest.raises(ValueError, match="axis"):
        Atlas.from_tensors(config | {"templates": spoiled}, tensors)
