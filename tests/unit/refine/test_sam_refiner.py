"""A localised core becomes the structure; what SAM gets wrong stays as it was localised."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.refine.acceptance import SWALLOWS, TOO_LITTLE, UNSURE
from fewshot.refine.base import Refined, Region
from fewshot.refine.memory import SMALL_GPU
from fewshot.refine.prompts import PROMPTS
from fewshot.refine.sam_refiner import SamOptions, SamRefiner, parts_of, says_little
from fewshot.settings import checked_options
from fewshot.volumes import Volume
from tests.unit.refine.fakes import FakeSam, cores, cut, discs

BOXED = ("box", "box+random")
"""The fake does not go beyond a box, which is that of the core."""


@pytest.fixture
def bank(tmp_path):
    return FeatureBank(tmp_path / "bank")


@pytest.fixture
def refine(bank):
    def run(region: Region, sam: FakeSam | None = None, *, seed: int = 0, **options) -> Refined:
        checked = checked_options("refinement sam", SamOptions, options)
        return SamRefiner(checked, sam=sam or FakeSam(), bank=bank).refine(region, seed=seed)

    return run


def localised(volume: Volume, labels: np.ndarray, probabilities: bool = False) -> tuple[Region, np.ndarray]:
    """Cores as region, and the true classes in slices."""
    stack = cut(volume)
    truth = stack.slices(labels)
    classes = cores(truth)
    maps = None
    if probabilities:
        maps = np.stack([0.6 * (classes == k) + 0.1 for k in range(3)], axis=-1).astype(np.float16)
    return Region(stack, ["bright", "medium"], classes, maps), truth


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("strategy", [name for name in PROMPTS if name not in BOXED])
def test_cores_become_the_structures(refine, strategy, probabilities):
    region, truth = localised(*discs(), probabilities)
    result = refine(region, prompts=strategy)
    assert result.classes.dtype == region.classes.dtype
    assert result.probabilities is None
    assert result.notes == []
    for label in (1, 2):
        assert dice(region.classes == label, truth == label) < 0.6
        assert dice(result.classes == label, truth == label) > 0.9


@pytest.mark.parametrize("strategy", BOXED)
def test_boxes_are_understood(refine, strategy):
    region, _ = localised(*discs())
    result = refine(region, prompts=strategy)
    np.testing.assert_array_equal(result.classes > 0, region.classes > 0)
    assert result.provenance["taken"] == result.provenance["masks"] == 8


def test_anisotropic_pixels(refine):
    volume, labels = discs(shape=(40, 16, 6), spacing=(2.0, 4.0, 6.0))
    region, truth = localised(volume, labels)
    region.classes[:] = 0
    for index in range(1, 5):
        region.classes[index, 5:8, 8:13] = 1
        region.classes[index, 8:11, 25:30] = 2
    assert (region.classes[region.classes > 0] == truth[region.classes > 0]).all()
    result = refine(region)
    for label in (1, 2):
        assert dice(result.classes == label, truth == label) > 0.9


def test_another_order_of_storage_gives_the_same_slices(refine):
    volume, labels = discs()
    region, _ = localised(volume, labels)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.shape[0] - 1)
    affine[:3, 0] *= -1
    array, stored = volume.array[::-1].transpose(2, 0, 1), labels[::-1].transpose(2, 0, 1)
    other, _ = localised(Volume(array, affine[:, [2, 0, 1, 3]], "MR", "discs"), stored)
    np.testing.assert_array_equal(other.classes, region.classes)
    one, two = refine(region), refine(other)
    np.testing.assert_array_equal(one.classes, two.classes)
    back = other.stack.restore(two.classes)
    assert back.shape == array.shape
    assert dice(back == 2, stored == 2) > 0.9


def test_only_slices_with_a_component_are_encoded_once(refine):
    region, _ = localised(*discs())
    sam = FakeSam()
    first = refine(region, sam)
    assert sam.encoded == [1, 1, 1, 1]
    assert len(sam.asked) == 4  # all prompts of a slice at once
    second = refine(region, sam, prompts="kmeans")
    assert sam.encoded == [1, 1, 1, 1]
    assert [result.provenance["encoded"] for result in (first, second)] == [4, 0]
    assert not first.classes[[0, 5]].any()


def test_provenance_says_what_was_done(refine):
    region, _ = localised(*discs())
    assert refine(region, points=7).provenance == {
        "sam": "fake",
        "digest": "fake-1",
        "prompts": "random",
        "points": 7,
        "slices": 4,
        "encoded": 4,
        "masks": 8,
        "taken": 8,
    }


def test_identity_names_the_weights(bank):
    assert SamRefiner(SamOptions(), sam=FakeSam(), bank=bank).identity() == {
        "sam": "fake",
        "digest": "fake-1",
    }


def test_ten_points_inside_each_component_in_one_go(refine):
    region, _ = localised(*discs())
    sam = FakeSam()
    refine(region, sam)
    prompts, multimask = sam.asked[0]
    assert not multimask
    assert len(prompts) == 2
    for label, prompt in enumerate(prompts, start=1):
        assert prompt.points.shape == (10, 2)
        assert {int(region.classes[1][int(row), int(col)]) for row, col in prompt.points} == {label}


def test_a_single_point_asks_for_several_candidates(refine):
    region, _ = localised(*discs())
    sam = FakeSam()
    refine(region, sam, prompts="centroid")
    assert [multimask for _, multimask in sam.asked] == [True] * 4
    sam.asked.clear()
    refine(region, sam, prompts="mask")
    assert [multimask for _, multimask in sam.asked] == [False] * 4
    assert all(not says_little(prompt) for prompts, _ in sam.asked for prompt in prompts)


def points_of(sam: FakeSam, *, of: int) -> np.ndarray:
    """Points of one prompt of the last slice that was asked about."""
    return sam.asked[-1][0][of].points


def test_points_depend_on_seed_slice_and_component_only(refine):
    region, _ = localised(*discs())
    sam = FakeSam()
    refine(region, sam)
    medium, other_slice = points_of(sam, of=1), sam.asked[-2][0][1].points
    alone = region.classes.copy()
    alone[:4] = 0
    alone[alone == 1] = 0
    refine(Region(region.stack, region.names, alone), sam)
    np.testing.assert_array_equal(points_of(sam, of=0), medium)
    assert (other_slice != medium).any()
    refine(region, sam, seed=1)
    assert (points_of(sam, of=1) != medium).any()


def test_same_seed_same_result(refine):
    region, _ = localised(*discs())
    sam = FakeSam(tolerance=0.02)
    np.testing.assert_array_equal(refine(region, sam, seed=4).classes, refine(region, sam, seed=4).classes)


def test_masks_that_swallow_the_image_are_not_taken(refine):
    region, _ = localised(*discs())
    sam = FakeSam(answer=lambda prompt, frame: np.ones(frame.native, bool))
    result = refine(region, sam)
    np.testing.assert_array_equal(result.classes, region.classes)
    assert result.notes == [f"SAM's mask was not taken for 8 of 8 regions ({SWALLOWS}: 8)"]
    assert result.provenance["taken"] == 0


def test_masks_beside_the_component_are_not_taken(refine):
    def elsewhere(prompt, frame):
        mask = np.zeros(frame.native, bool)
        mask[-4:, -4:] = True
        return mask

    region, _ = localised(*discs())
    result = refine(region, FakeSam(answer=elsewhere))
    np.testing.assert_array_equal(result.classes, region.classes)
    assert result.notes == [f"SAM's mask was not taken for 8 of 8 regions ({TOO_LITTLE}: 8)"]


def test_islands_of_a_mask_elsewhere_are_left_out(refine):
    region, truth = localised(*discs())

    def with_island(prompt, frame):
        label = region.classes[1][tuple(prompt.points[0].astype(int))]
        mask = truth[1] == label
        mask[28:30, 3:6] = True
        return mask

    np.testing.assert_array_equal(refine(region, FakeSam(answer=with_island)).classes, truth)


def test_background_points_keep_off_the_labels_other_parts(refine):
    """Where completion placed them the adapter's own probability may be low."""
    region, _ = localised(*discs())
    classes = np.zeros_like(region.classes)
    classes[2, 10:13, 10:28] = classes[2, 18:21, 10:28] = 1
    maps = np.zeros((*classes.shape, 2), np.float16)
    sam = FakeSam()
    for seed in range(5):
        refine(Region(region.stack, ["bars"], classes, maps), sam, prompts="background", seed=seed)
    points = np.concatenate([each.points[each.labels == 0] for asked, _ in sam.asked for each in asked])
    assert len(points) == 50
    assert not classes[2][tuple(points.astype(int).T)].any()


def test_masks_of_little_quality_are_not_taken_unless_allowed(refine):
    region, _ = localised(*discs())
    sam = FakeSam(quality=0.3)
    result = refine(region, sam)
    np.testing.assert_array_equal(result.classes, region.classes)
    assert result.notes == [f"SAM's mask was not taken for 8 of 8 regions ({UNSURE}: 8)"]
    assert refine(region, sam, quality=0.2).provenance["taken"] == 8


def test_one_refused_mask_leaves_the_others_taken(refine):
    region, truth = localised(*discs())

    def answer(prompt, frame):
        if region.classes[1][tuple(prompt.points[0].astype(int))] == 1:
            return np.ones(frame.native, bool)
        return truth[1] == 2

    result = refine(region, FakeSam(answer=answer))
    np.testing.assert_array_equal(result.classes == 1, region.classes == 1)
    np.testing.assert_array_equal(result.classes == 2, truth == 2)
    assert result.notes == [f"SAM's mask was not taken for 4 of 8 regions ({SWALLOWS}: 4)"]


def test_the_limit_is_a_share_of_the_body(refine):
    """The same mask is half of the slice, but nearly all of a small body in much air."""
    volume, labels = discs(shape=(40, 32, 6))
    region, _ = localised(volume, labels)

    def half(prompt, frame):
        mask = np.zeros(frame.native, bool)
        mask[4:20, 4:34] = True
        return mask

    assert refine(region, FakeSam(answer=half), growth=1000.0).provenance["taken"] > 0
    air = volume.array.copy()
    air[:, 20:] = 0
    air[34:] = 0
    stack = cut(Volume(air, volume.affine, "MR", "small"))
    small = Region(stack, region.names, np.where(region.classes == 1, 1, 0).astype(np.uint16))
    assert refine(small, FakeSam(answer=half), growth=1000.0).notes == [
        f"SAM's mask was not taken for 4 of 4 regions ({SWALLOWS}: 4)"
    ]


def overlapping(prompt, frame, *, classes):
    """Each label's mask reaches four columns into the other's half."""
    label = classes[tuple(prompt.points[0].astype(int))]
    mask = np.zeros(frame.native, bool)
    mask[6:22, 4:24] = label == 1
    mask[6:22, 16:36] |= label == 2
    return mask


@pytest.mark.parametrize(("bright", "medium", "winner"), [(0.4, 0.2, 1), (0.2, 0.4, 2)])
def test_where_masks_overlap_the_adapters_probability_decides(refine, bright, medium, winner):
    region, _ = localised(*discs())
    maps = np.zeros((*region.classes.shape, 3), np.float16)
    maps[..., 1], maps[..., 2] = bright, medium
    for label in (1, 2):
        maps[region.classes == label] = np.eye(3)[label]
    region = Region(region.stack, region.names, region.classes, maps)
    result = refine(region, FakeSam(answer=partial(overlapping, classes=region.classes[1])), growth=50.0)
    assert result.provenance["taken"] == 8
    both = np.zeros_like(region.classes, bool)
    both[1:5, 6:22, 16:24] = region.classes[1:5, 6:22, 16:24] == 0
    assert both.any()
    assert set(result.classes[both]) == {winner}
    np.testing.assert_array_equal(result.classes[region.classes > 0], region.classes[region.classes > 0])
    assert {1, 2} <= set(result.classes[1, 6:22, 4:16].flat) | set(result.classes[1, 6:22, 24:36].flat)


def test_a_label_at_the_border(refine):
    volume, labels = discs()
    array, labels = volume.array[8:, 8:].copy(), labels[8:, 8:]
    array[-2:] = 0  # some air, else the body's grey would be the darkest there is
    region, truth = localised(Volume(array, volume.affine, "MR", "cut"), labels)
    classes = region.classes.copy()
    classes[1:5, 0:3, 0:3] = 1
    assert (truth[1:5, 0:3, 0:3] == 1).all()
    result = refine(Region(region.stack, region.names, classes))
    assert dice(result.classes == 1, truth == 1) > 0.85
    assert dice(result.classes == 2, truth == 2) > 0.9


def test_an_empty_label_stays_empty(refine):
    region, truth = localised(*discs())
    classes = np.where(region.classes == 1, 0, region.classes)
    result = refine(Region(region.stack, region.names, classes))
    assert set(np.unique(result.classes)) == {0, 2}
    assert dice(result.classes == 2, truth == 2) > 0.9


def test_nothing_localised(refine):
    region, _ = localised(*discs())
    sam = FakeSam()
    result = refine(Region(region.stack, region.names, np.zeros_like(region.classes)), sam)
    assert not result.classes.any()
    assert sam.encoded == []
    assert result.provenance["masks"] == result.provenance["slices"] == 0
    assert result.notes == []


def test_components_of_a_few_pixels_stay_as_they_are(refine):
    region, _ = localised(*discs())
    classes = np.zeros_like(region.classes)
    classes[0, 10, 10:14] = 2
    classes[1] = region.classes[1]
    classes[1, 28, 2:4] = 1
    sam = FakeSam()
    result = refine(Region(region.stack, region.names, classes), sam)
    assert sam.encoded == [1]  # the first slice has nothing to prompt for
    assert result.provenance["masks"] == 2
    np.testing.assert_array_equal(result.classes[0], classes[0])
    assert (result.classes[1, 28, 2:4] == 1).all()
    assert refine(Region(region.stack, region.names, classes), smallest=4).provenance["masks"] == 3


def test_several_parts_of_a_label_each_have_a_mask(refine):
    region, truth = localised(*discs())
    classes = (region.classes > 0).astype(np.uint16)
    result = refine(Region(region.stack, ["both"], classes))
    assert result.provenance["masks"] == 8
    assert dice(result.classes == 1, truth > 0) > 0.9


def test_a_picture_of_one_slice(refine):
    volume, labels = discs()
    flat = Volume(volume.array[:, :, 2:3], np.eye(4), "XR", "picture", calibrated=False)
    region, truth = localised(flat, labels[:, :, 2:3])
    assert len(region.stack) == 1
    result = refine(region)
    assert result.provenance["slices"] == 1
    assert dice(result.classes == 2, truth == 2) > 0.9


def test_random_weights_are_told(refine):
    region, _ = localised(*discs())
    assert refine(region, FakeSam(note="weights are random")).notes == ["weights are random"]


def test_too_little_memory_gives_the_same_result_with_a_note(refine, bank, tmp_path):
    region, _ = localised(*discs())
    plenty = refine(region).classes
    for fits, prompts_at_once, notes in ((1, [1] * 8, []), (0, [2, 2, 2, 2], [SMALL_GPU])):
        sam = FakeSam(fits=fits)
        fresh = FeatureBank(tmp_path / f"bank_{fits}")
        result = SamRefiner(SamOptions(), sam=sam, bank=fresh).refine(region)
        np.testing.assert_array_equal(result.classes, plenty)
        assert [len(prompts) for prompts, _ in sam.asked] == prompts_at_once
        assert result.notes == notes


def test_too_little_memory_for_the_prompts_alone(refine):
    region, _ = localised(*discs())
    plenty = refine(region)  # the embeddings are in the bank now
    sam = FakeSam(fits=0)
    sam.dtype = FakeSam().dtype
    result = refine(region, sam)
    np.testing.assert_array_equal(result.classes, plenty.classes)
    assert sam.encoded == []
    assert sam.device.type == "cpu"
    assert result.notes == [SMALL_GPU]


def test_progress_goes_over_slices(bank):
    region, _ = localised(*discs())
    told = []
    SamRefiner(SamOptions(), sam=FakeSam(), bank=bank).refine(
        region, progress=lambda stage, done, total: told.append((stage, done, total))
    )
    assert told == [(stage, done, 4) for stage in ("encode", "refine") for done in range(5)]


def test_the_region_is_left_alone(refine):
    region, _ = localised(*discs(), True)
    classes, maps = region.classes.copy(), region.probabilities.copy()
    refine(region)
    np.testing.assert_array_equal(region.classes, classes)
    np.testing.assert_array_equal(region.probabilities, maps)


def test_an_unknown_strategy_is_refused(refine):
    region, _ = localised(*discs())
    with pytest.raises(FewshotError, match="no prompt strategy 'ten'; choose one of random"):
        refine(region, prompts="ten")


@pytest.mark.parametrize(
    ("option", "value"),
    [("points", 0), ("quality", 1.5), ("growth", 0.5), ("agreement", 0.0), ("body", 2.0), ("rim", 1)],
)
def test_options_are_checked(refine, option, value):
    region, _ = localised(*discs())
    with pytest.raises(FewshotError, match=option):
        refine(region, **{option: value})


def test_parts_are_counted_per_label_in_reading_order():
    classes = np.zeros((6, 10), np.uint16)
    classes[0, 8:] = 2
    classes[1, 0:2] = 1
    classes[1, 2:4] = 2  # touches another label, which is not the same component
    classes[2, 4] = 2  # by a corner
    classes[4, 5:9] = 1
    parts = parts_of(classes)
    assert [(part.label, part.number, int(part.mask.sum())) for part in parts] == [
        (2, 0, 2),
        (1, 0, 2),
        (2, 1, 3),
        (1, 1, 4),
    ]
    assert [(part.label, part.number) for part in parts_of(classes, 3)] == [(2, 1), (1, 1)]
    assert parts_of(np.asfortranarray(classes)[:1, :5]) == []
    np.testing.assert_array_equal(parts_of(np.asfortranarray(classes))[2].mask, parts[2].mask)
