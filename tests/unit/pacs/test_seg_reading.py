"""Segmentations of any writer come onto the image's own grid: right voxels, right names."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless

from lib.pacs.seg_reading import read_header, read_seg
from tests.unit.pacs.segs import (
    GRIDS,
    SHAPE,
    TURN,
    affine_of,
    drawn,
    frames_of,
    in_eight_bits,
    seg,
    volume_of,
    without_places,
)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per frame"])
def test_what_was_drawn_on_the_image_comes_back_voxel_by_voxel(grid: str, shared: bool) -> None:
    labels = drawn()
    read = read_seg(seg(frames_of(labels), GRIDS[grid], shared=shared), volume_of(GRIDS[grid]))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_image_may_have_any_voxel_order(grid: str, order: tuple[int, int, int]) -> None:
    labels = drawn()
    affine = GRIDS[grid].copy()
    affine[:, 3] = affine @ (SHAPE[0] - 1, 0, SHAPE[2] - 1, 1)
    affine[:, [0, 2]] *= -1
    turned = affine[:, [*order, 3]]
    expected = labels[::-1, :, ::-1].transpose(order)
    read = read_seg(seg(frames_of(labels), GRIDS[grid]), volume_of(turned, expected.shape))
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("between", [True, False])
def test_slices_left_out_stay_empty(between: bool) -> None:
    labels = drawn(slices=(1, 3, 5))
    read = read_seg(seg(frames_of(labels), GRIDS["oblique"], between=between), volume_of(GRIDS["oblique"]))
    np.testing.assert_array_equal(read, labels)


def test_one_frame_is_enough() -> None:
    labels = drawn(values=(2,), slices=(3,))
    dataset = seg(frames_of(labels), GRIDS["axial"], between=False)
    del dataset.NumberOfFrames
    np.testing.assert_array_equal(read_seg(dataset, volume_of(GRIDS["axial"])), labels)


def test_values_are_positions_in_the_list_whatever_the_numbers() -> None:
    labels = drawn()

    def renumber(dataset: Dataset) -> None:
        numbers = {1: 40, 2: 7, 3: 5}
        for item in dataset.SegmentSequence:
            item.SegmentNumber = numbers[item.SegmentNumber]
        for group in dataset.PerFrameFunctionalGroupsSequence:
            item = group.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = numbers[item.ReferencedSegmentNumber]

    dataset = seg(frames_of(labels), GRIDS["axial"], change=renumber)
    assert [segment.number for segment in read_header(dataset).segments] == [40, 7, 5]
    np.testing.assert_array_equal(read_seg(dataset, volume_of(GRIDS["axial"])), labels)


@pytest.mark.parametrize("compressed", [False, True])
def test_half_and_more_of_a_fraction_counts(compressed: bool) -> None:
    labels = drawn()

    def change(dataset: Dataset) -> None:
        in_eight_bits(dataset)
        if compressed:
            dataset.compress(RLELossless)

    read = read_seg(seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"]))
    np.testing.assert_array_equal(read, np.where(labels == 1, 1, 0))


def test_a_coarser_grid_that_reaches_beyond_the_image() -> None:
    fine = affine_of(TURN, (1.0, 1.0, 2.0))
    coarse = affine_of(TURN, (2.0, 2.0, 4.0))
    # the first coarse voxel lies outside, the second holds the first 2 x 2 x 2 of the image
    coarse[:, 3] = fine @ (-1.5, -1.5, -1.5, 1)
    labels = np.random.default_rng(3).integers(0, 3, (5, 4, 5)).astype(np.uint16)
    labels[:, :, 0] = 0
    expected = labels[1:, 1:, 1:].repeat(2, 0).repeat(2, 1).repeat(2, 2)[:7, :5, :8]
    read = read_seg(seg(frames_of(labels), coarse), volume_of(fine, (7, 5, 8)))
    np.testing.assert_array_equal(read, expected)


def test_a_coarser_distance_of_slices_alone() -> None:
    fine, coarse = affine_of(spacing=(1, 1, 2)), affine_of(spacing=(1, 1, 6))
    coarse[:, 3] = fine @ (0, 0, 1, 1)
    labels = drawn(slices=(0, 1, 3))
    read = read_seg(seg(frames_of(labels), coarse), volume_of(fine, (7, 5, 18)))
    np.testing.assert_array_equal(read, labels.repeat(3, 2))


def test_frames_a_little_farther_apart_than_declared_leave_no_hole() -> None:
    def change(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 2.5

    labels = np.ones((7, 5, 2), dtype=np.uint16)
    dataset = seg(frames_of(labels), affine_of(spacing=(1, 1, 3)), change=change)
    assert read_seg(dataset, volume_of(affine_of(spacing=(1, 1, 0.5)), (7, 5, 7))).all()


def test_a_finer_grid_gives_what_lies_at_each_voxel() -> None:
    fine, coarse = affine_of(TURN, (0.5, 0.5, 1.0)), affine_of(TURN, (1.5, 1.5, 3.0))
    coarse[:, 3] = fine @ (1, 1, 1, 1)
    labels = np.random.default_rng(3).integers(0, 3, (12, 9, 15)).astype(np.uint16)
    read = read_seg(seg(frames_of(labels), fine), volume_of(coarse, (4, 3, 5)))
    np.testing.assert_array_equal(read, labels[1::3, 1::3, 1::3])


def test_what_lies_between_the_slices_does_not_vanish() -> None:
    fine, coarse = affine_of(spacing=(1, 1, 1)), affine_of(spacing=(1, 1, 5))
    labels = np.zeros((7, 5, 30), dtype=np.uint16)
    labels[2:4, 1, 12] = 1
    labels[:, :, 20:] = 2
    read = read_seg(seg(frames_of(labels), fine), volume_of(coarse))
    assert (read[2:4, 1, 2] == 1).all()
    assert (read == 1).sum() == 2
    assert (read[:, :, 4:] == 2).all()


def test_an_inclusion_is_kept_wherever_it_is_listed() -> None:
    organ = np.ones(SHAPE[:2], dtype=bool)
    lesion = np.zeros(SHAPE[:2], dtype=bool)
    lesion[2:4, 1:3] = True
    for first, second in [(1, 2), (2, 1)]:
        read = read_seg(
            seg([(first, 2, organ), (second, 2, lesion)], GRIDS["axial"]), volume_of(GRIDS["axial"])
        )
        np.testing.assert_array_equal(read[:, :, 2], np.where(lesion, second, first))


def test_of_two_equal_segments_the_higher_number_counts() -> None:
    left, right = np.zeros(SHAPE[:2], dtype=bool), np.zeros(SHAPE[:2], dtype=bool)
    left[0:4], right[2:6] = True, True
    read = read_seg(seg([(3, 2, left), (1, 2, right)], GRIDS["axial"]), volume_of(GRIDS["axial"]))
    assert read[:, 0, 2].tolist() == [3, 3, 3, 3, 1, 1, 0]


@pytest.mark.parametrize("change", [lambda _: None, without_places], ids=["placed", "without position"])
def test_a_single_picture(change: Callable[[Dataset], None]) -> None:
    labels = drawn(slices=(0,))[:, :, :1]
    read = read_seg(
        seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"], (7, 5, 1))
    )
    np.testing.assert_array_equal(read, labels)


def test_another_frame_of_reference_is_no_reason_to_refuse() -> None:
    labels = drawn()

    def change(dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = "9.9.9"

    read = read_seg(seg(frames_of(labels), GRIDS["axial"], change=change), volume_of(GRIDS["axial"]))
    np.testing.assert_array_equal(read, labels)


def test_frames_without_a_stroke_may_lie_anywhere() -> None:
    labels = drawn()
    frames = [*frames_of(labels), (2, 99, np.zeros(SHAPE[:2], dtype=bool))]
    np.testing.assert_array_equal(read_seg(seg(frames, GRIDS["axial"]), volume_of(GRIDS["axial"])), labels)


def test_nothing_drawn_is_an_empty_label_map() -> None:
    frames = [(1, 2, np.zeros(SHAPE[:2], dtype=bool))]
    assert not read_seg(seg(frames, GRIDS["axial"]), volume_of(GRIDS["axial"])).any()


def test_a_large_image_takes_well_under_a_second() -> None:
    shape = (512, 512, 400)
    affine = affine_of(TURN)
    mask = np.zeros(shape[:2], dtype=bool)
    mask[5:500, 5:500] = True
    dataset = seg([(1 + at % 2, 100 + at, mask) for at in range(20)], affine)
    start = time.process_time()
    read = read_seg(dataset, volume_of(affine, shape))
    took = time.process_time() - start
    assert (read[:, :, 101] == 2 * mask).all()
    assert took < 1.0


def test_frames_across_the_image_need_no_memory_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    affine = affine_of(spacing=(1, 1, 1))
    mask = np.ones((9, 9), dtype=bool)
    dataset = seg([(1, 4, mask)], affine_of(TURN, (1, 1, 1)), between=False)
    whole = read_seg(dataset, volume_of(affine, (20, 20, 20)))
    monkeypatch.setattr("lib.pacs.seg_placing.CHUNK", 500)
    np.testing.assert_array_equal(read_seg(dataset, volume_of(affine, (20, 20, 20))), whole)
    assert whole.sum() > 40
