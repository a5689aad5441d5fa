"""Laws of the way from a volume to slices, pixels and patches, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial.transform import Rotation

from fewshot.errors import FewshotError
from fewshot.volumes import PLANES, SliceSpec, SliceStack, Volume

NAMED = PLANES[1:]
PATCH = 4


@st.composite
def volumes(draw: st.DrawFn, *, smallest: int = 1, largest: int = 9) -> Volume:
    """Random voxels in any axis order and direction, any spacing, up to 25 degrees oblique, some sheared."""
    shape = tuple(draw(st.integers(smallest, largest)) for _ in range(3))
    spacing = [draw(st.floats(0.3, 6.0)) for _ in range(3)]
    angles = [draw(st.floats(-15, 15)) for _ in range(3)]
    order = draw(st.permutations(range(3)))
    signs = [draw(st.sampled_from((-1, 1))) for _ in range(3)]
    steps = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, order] * signs * spacing
    steps[:, 2] += draw(st.sampled_from((0.0, 0.1))) * steps[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = [draw(st.floats(-200, 200)) for _ in range(3)]
    array = np.random.default_rng(draw(st.integers(0, 99))).uniform(0, 1, shape)
    return Volume(array.astype(np.float32), affine, "MR", "case")


specs = st.builds(
    SliceSpec,
    plane=st.sampled_from(PLANES),
    size=st.integers(16, 40),
    pixel_mm=st.one_of(st.none(), st.floats(0.3, 3.0)),
)


@given(volumes(), specs)
def test_restore_is_the_exact_inverse_of_slices(volume: Volume, spec: SliceSpec) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    slices = stack.slices(volume.array)
    assert slices.shape == (len(stack), *stack.native)
    np.testing.assert_array_equal(stack.restore(slices), volume.array)


@given(st.data(), volumes(), specs)
def test_a_box_lies_in_the_slices_where_its_voxels_do(
    data: st.DataObject, volume: Volume, spec: SliceSpec
) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    edges = []
    for side in volume.shape:
        start = data.draw(st.integers(0, side - 1))
        edges.append(slice(start, data.draw(st.integers(start + 1, side))))
    box = (edges[0], edges[1], edges[2])
    alone = np.zeros_like(volume.array)
    alone[box] = volume.array[box]
    place, values = stack.slices_of_box(box, volume.array[box])
    in_slices = np.zeros((len(stack), *stack.native), np.float32)
    in_slices[place] = values
    np.testing.assert_array_equal(in_slices, stack.slices(alone))


@given(volumes(), specs)
def test_slices_are_counted_along_the_axis_as_it_is_said(volume: Volume, spec: SliceSpec) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    along = np.moveaxis(volume.array, stack.axis, 0)
    along = along if stack.upright else along[::-1]
    for of_stack, of_array in zip(stack.slices(volume.array), along, strict=True):
        np.testing.assert_array_equal(np.sort(of_stack, None), np.sort(of_array, None))


@given(volumes(), specs)
def test_images_have_whole_patches_with_the_content_at_the_top_left(volume: Volume, spec: SliceSpec) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    rows, cols = stack.content
    assert stack.images.shape == stack.shape == (len(stack), stack.grid[0] * PATCH, stack.grid[1] * PATCH)
    assert stack.images.dtype == np.float32
    assert stack.air.shape == (len(stack),)
    assert 0 <= stack.shape[1] - rows < PATCH
    assert 0 <= stack.shape[2] - cols < PATCH
    assert not stack.images[:, rows:].any()
    assert not stack.images[:, :, cols:].any()
    assert max(rows, cols) >= min(PATCH, stack.size)


@given(volumes(), specs, st.permutations(range(3)), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_storing_the_same_anatomy_otherwise_changes_nothing_that_is_seen(
    volume: Volume, spec: SliceSpec, order: list[int], flips: tuple[bool, bool, bool]
) -> None:
    array, affine = volume.array, volume.affine.copy()
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    stored = Volume(array.transpose(order), affine[:, [*order, 3]], "MR")
    one, other = SliceStack(volume, spec, patch=PATCH), SliceStack(stored, spec, patch=PATCH)
    assert one.plane == other.plane
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.air, other.air)
    np.testing.assert_allclose(
        one.world(np.array([[1, 2, 3]])), other.world(np.array([[1, 2, 3]])), atol=1e-6
    )


@given(volumes(), specs)
def test_world_agrees_with_the_affine_of_the_file(volume: Volume, spec: SliceSpec) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    voxels = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    axes = [stack.slices(voxels[:, axis].reshape(volume.shape)).ravel() for axis in range(3)]
    expected = np.stack(axes, axis=-1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    slices, rows, cols = np.indices((len(stack), *stack.native)).reshape(3, -1)
    pixels = np.stack(
        [
            slices,
            (rows + 0.5) * stack.content[0] / stack.native[0] - 0.5,
            (cols + 0.5) * stack.content[1] / stack.native[1] - 0.5,
        ],
        axis=-1,
    )
    np.testing.assert_allclose(stack.world(pixels), expected, atol=1e-6)


@given(volumes(), specs, st.integers(0, 99))
def test_locate_is_the_inverse_of_world(volume: Volume, spec: SliceSpec, seed: int) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    points = np.random.default_rng(seed).uniform(-50, 50, (7, 3))
    np.testing.assert_allclose(stack.locate(stack.world(points)), points, atol=1e-6)
    np.testing.assert_allclose(stack.world(stack.locate(points)), points, atol=1e-6)
    assert stack.world(np.zeros((0, 3))).shape == (0, 3)


@given(volumes(), specs, st.integers(0, 99))
def test_labels_come_back_from_the_pixels(volume: Volume, spec: SliceSpec, seed: int) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    labels = (
        np.random.default_rng(seed)
        .integers(0, 3, volume.shape)
        .repeat(3, 0)[: volume.shape[0]]
        .astype(np.uint16)
    )
    back = stack.from_pixels(stack.to_pixels(labels))
    assert back.dtype == labels.dtype
    if all(content >= native for content, native in zip(stack.content, stack.native, strict=True)):
        np.testing.assert_array_equal(back, labels, err_msg="pixels are finer than voxels: nothing is lost")
    # else a voxel may change only where another label lies within one pixel
    reach = [
        1,
        *(2 * -(-native // content) + 1 for native, content in zip(stack.native, stack.content, strict=True)),
    ]
    slices, returned = stack.slices(labels), stack.slices(back)
    boundary = maximum_filter(slices, reach) != minimum_filter(slices, reach)
    assert not (slices != returned)[~boundary].any()


@given(volumes(), specs)
def test_linear_way_back_keeps_the_range_and_constants(volume: Volume, spec: SliceSpec) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    back = stack.from_pixels(stack.images.astype(np.float16), linear=True)
    assert back.shape == volume.shape
    assert back.dtype == np.float32
    assert back.min() >= 0
    assert back.max() <= 1.001
    padded = np.full(stack.shape, 9.0)
    padded[:, : stack.content[0], : stack.content[1]] = 0.25
    np.testing.assert_allclose(stack.from_pixels(padded, linear=True), 0.25, atol=1e-6)


@given(volumes(), specs)
def test_patch_coordinates_are_where_the_patches_lie(volume: Volume, spec: SliceSpec) -> None:
    """A ramp of native positions, averaged over patches and interpolated there, gives the native positions."""
    stack = SliceStack(volume, spec, patch=PATCH)
    for coordinates, native, content, patches in zip(
        stack.patch_coordinates(), stack.native, stack.content, stack.grid, strict=True
    ):
        assert coordinates.dtype == np.float32
        pixels = (np.arange(patches * PATCH) + 0.5) * native / content - 0.5
        ramp = pixels.reshape(patches, PATCH).mean(axis=1)
        inside = (coordinates >= 0) & (coordinates <= patches - 1)
        sampled = np.interp(coordinates[inside], np.arange(patches), ramp)
        np.testing.assert_allclose(sampled, np.arange(native)[inside], atol=1e-4)


@given(volumes(smallest=6, largest=40), st.integers(16, 60))
def test_images_do_not_move_the_anatomy(volume: Volume, size: int) -> None:
    """The images of a ramp are the ramp: at the place that `locate` says, up to the edges."""
    stack = SliceStack(volume, SliceSpec("axial", "percentile", size), patch=PATCH)
    assume(min(stack.content) >= 4)
    ramp = np.indices((len(stack), *stack.native))[2].astype(np.float32)
    tilted = Volume(stack.restore(ramp), volume.affine, "MR")
    stack = SliceStack(tilted, stack.spec, patch=PATCH)
    low, high = stack.limits
    values = stack.images[:, : stack.content[0], : stack.content[1]] * (high - low) + low
    cols = (np.arange(stack.content[1]) + 0.5) * stack.native[1] / stack.content[1] - 0.5
    coarser = max(1.0, stack.native[1] / stack.content[1])
    edge = 1.5 * coarser + 0.01 * stack.native[1]
    inside = (cols > edge) & (cols < stack.native[1] - 1 - edge)
    # a discrete averaging filter keeps a ramp up to a tenth of a pixel
    np.testing.assert_allclose((values - cols)[:, :, inside] / coarser, 0, atol=0.1)


@given(volumes(), specs, st.integers(0, 99))
def test_slices_rendered_by_themselves_are_those_of_the_stack(
    volume: Volume, spec: SliceSpec, seed: int
) -> None:
    stack = SliceStack(volume, spec, patch=PATCH)
    rows = np.random.default_rng(seed).integers(0, len(stack), 3).tolist()
    np.testing.assert_array_equal(stack.render(rows), stack.images[rows])


# what a reader sees


@pytest.mark.parametrize(
    ("plane", "right", "anterior", "superior"),
    [
        # which axis of [S, rows, cols] shows the direction, and whether it runs along it
        ("axial", (2, False), (1, False), (0, True)),
        ("coronal", (2, False), (0, True), (1, False)),
        ("sagittal", (0, True), (2, False), (1, False)),
    ],
)
def test_slices_are_shown_as_radiologists_look_at_them(
    plane: str, right: tuple[int, bool], anterior: tuple[int, bool], superior: tuple[int, bool]
) -> None:
    shape = (5, 6, 7)
    for axis, (target, along) in enumerate((right, anterior, superior)):
        array = np.moveaxis(
            np.broadcast_to(np.arange(shape[axis]), [*np.delete(shape, axis), shape[axis]]), -1, axis
        )
        stack = SliceStack(Volume(array, np.diag([1, 2, 3, 1.0])), SliceSpec(plane, size=16), patch=PATCH)
        ramp = np.moveaxis(stack.slices(array), target, 0)[:, 0, 0]
        assert (np.diff(ramp) > 0).all() == along
        assert (np.diff(ramp) < 0).all() != along


@pytest.mark.parametrize("plane", NAMED)
def test_pixels_are_square(plane: str) -> None:
    """A box of 60 x 90 x 120 mm keeps its proportions whatever its voxels are."""
    sides = {"axial": (90, 60), "coronal": (120, 60), "sagittal": (120, 90)}[plane]
    for shape in [(60, 90, 120), (12, 45, 30), (60, 30, 24)]:
        spacing = np.divide((60, 90, 120), shape)
        volume = Volume(np.zeros(shape, np.float32), np.diag([*spacing, 1]))
        assert SliceStack(volume, SliceSpec(plane, size=240), patch=PATCH).content == (
            round(sides[0] * 240 / max(sides)),
            round(sides[1] * 240 / max(sides)),
        )


def flat(side: int, *, calibrated: bool = True) -> Volume:
    array = np.random.default_rng(0).uniform(0, 1, (side, side, 2)).astype(np.float32)
    return Volume(array, np.diag([1, 1, 5.0, 1]), "MR", calibrated=calibrated)


def test_a_far_larger_field_of_view_is_held_to_twice_the_size_and_noted() -> None:
    spec = SliceSpec(size=32, pixel_mm=1.0)
    assert SliceStack(flat(64), spec, patch=PATCH).content == (64, 64)
    assert SliceStack(flat(64), spec, patch=PATCH).notes == ()
    large = SliceStack(flat(200), spec, patch=PATCH)
    assert large.content == (64, 64)
    assert any("200 mm" in note and "64 pixels" in note for note in large.notes)


def test_a_far_smaller_field_of_view_fills_one_patch() -> None:
    assert SliceStack(flat(3), SliceSpec(size=32, pixel_mm=2.0), patch=PATCH).content == (PATCH, PATCH)


def test_without_calibration_the_longest_side_is_the_size() -> None:
    assert SliceStack(flat(77, calibrated=False), SliceSpec(size=32, pixel_mm=0.1), patch=PATCH).content == (
        32,
        32,
    )


def test_shrinking_averages_instead_of_picking() -> None:
    chessboard = np.indices((64, 64, 2)).sum(axis=0) % 2
    images = SliceStack(Volume(chessboard, np.eye(4)), SliceSpec("axial", size=16), patch=PATCH).images
    assert np.abs(images - 0.5).max() < 0.1


def test_images_of_the_native_size_are_the_native_slices() -> None:
    volume = flat(32)
    stack = SliceStack(volume, SliceSpec(size=32), patch=PATCH)
    low, high = stack.limits
    np.testing.assert_allclose(
        stack.images, np.clip((stack.slices(volume.array) - low) / (high - low), 0, 1), atol=1e-6
    )


def test_the_digest_names_the_images() -> None:
    volume, spec = flat(40), SliceSpec(size=32)
    digest = SliceStack(volume, spec, patch=PATCH).digest
    # the same pixels, asked for otherwise
    assert SliceStack(flat(40), SliceSpec("axial", "percentile", 32, 40 / 32), patch=PATCH).digest == digest
    others = [
        SliceStack(volume, SliceSpec(size=33), patch=PATCH),
        SliceStack(volume, SliceSpec("coronal", size=32), patch=PATCH),
        SliceStack(volume, SliceSpec(window="ct-soft", size=32), patch=PATCH),
        SliceStack(volume, spec, patch=PATCH + 1),
        SliceStack(Volume(volume.array + 1, volume.affine, "MR"), spec, patch=PATCH),
    ]
    assert len({digest, *(other.digest for other in others)}) == 6


def test_arrays_of_another_shape_are_refused() -> None:
    stack = SliceStack(flat(8), SliceSpec(size=16), patch=PATCH)
    for call, shape in [
        (stack.slices, (2, 8, 8)),
        (stack.restore, (8, 8, 2)),
        (stack.to_pixels, (8, 8, 3)),
        (stack.from_pixels, (2, 8, 8)),
    ]:
        with pytest.raises(FewshotError, match="shape"):
            call(np.zeros(shape))
