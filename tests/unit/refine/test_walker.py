"""The random walk moves a rough boundary to the image's edge, and says how certain it is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from fewshot.errors import FewshotError
from fewshot.refine.base import Region
from fewshot.refine.graph import walk
from fewshot.refine.walker import WalkerOptions, WalkerRefiner
from fewshot.settings import checked_options
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.conftest import blobs


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def rough_region(*, probabilities=True, keep=slice(None)):
    """The blobs' region as an adapter sees it: blurred, a pixel off, and a little too large."""
    volume, labels = blobs(0)
    volume, labels = replace(volume, array=volume.array[:, :, keep].copy()), labels[:, :, keep]
    stack = SliceStack(volume, SliceSpec(), patch=1)
    truth = stack.slices(labels)
    maps = np.stack(
        [gaussian_filter(shift((truth == k).astype(float), (0, 1.5, 1)), (0.5, 3, 3)) for k in (1, 2)], -1
    )
    maps = np.concatenate([np.maximum(0.3, 1 - maps.sum(-1, keepdims=True)), maps], -1)
    maps /= maps.sum(-1, keepdims=True)
    classes = maps.argmax(-1).astype(np.uint16)
    given = maps.astype(np.float16) if probabilities else None
    return Region(stack, ["bright", "dark"], classes, given), truth


def refined(region, **options):
    return WalkerRefiner(checked_options("refinement walker", WalkerOptions, options)).refine(region)


@pytest.mark.parametrize("probabilities", [True, False])
def test_boundaries_move_to_the_edges(probabilities):
    region, truth = rough_region(probabilities=probabilities)
    found = refined(region)
    gains = [dice(found.classes == k, truth == k) - dice(region.classes == k, truth == k) for k in (1, 2)]
    assert min(gains) > 0.01
    assert not probabilities or np.mean(gains) > 0.03


def test_probabilities_are_its_own():
    region, _ = rough_region()
    found = refined(region)
    assert found.probabilities.shape == region.probabilities.shape
    assert np.abs(found.probabilities.astype(float).sum(-1) - 1).max() < 0.01
    assert np.array_equal(found.probabilities.astype(np.float32).argmax(-1), found.classes)
    assert found.provenance["changed"] == np.count_nonzero(found.classes != region.classes) > 0


def test_the_same_again_is_the_same():
    region, _ = rough_region()
    assert np.array_equal(refined(region).probabilities, refined(region).probabilities)


def test_much_trust_changes_nothing():
    region, _ = rough_region()
    assert np.array_equal(refined(region, trust=99.0).classes, region.classes)


def test_a_dropped_component_does_not_come_back():
    region, _ = rough_region()
    classes = region.classes.copy()
    classes[classes == 2] = 0  # its probabilities are still there
    found = refined(Region(region.stack, region.names, classes, region.probabilities))
    assert not (found.classes == 2).any()
    assert (found.classes == 1).any()


def test_slices_far_apart_do_not_mix():
    """A slice without labels gets some from its neighbours only if they are near, and if it is told to."""
    region, truth = rough_region()
    gap = int(truth.any(axis=(1, 2)).argmax()) + 2
    classes, maps = region.classes.copy(), region.probabilities.copy()
    classes[gap], maps[gap] = 0, (0.4, 0.3, 0.3)
    holed = Region(region.stack, region.names, classes, maps)
    assert not refined(holed, across=False).classes[gap].any()


@pytest.mark.parametrize("keep", [slice(4, 5), slice(3, 5)])
def test_few_slices(keep):
    region, truth = rough_region(keep=keep)
    found = refined(region).classes
    assert dice(found == 1, truth == 1) > dice(region.classes == 1, truth == 1)


def test_nothing_localised_stays_nothing():
    region, _ = rough_region()
    empty = Region(region.stack, region.names, np.zeros_like(region.classes), region.probabilities)
    assert not refined(empty).classes.any()


def test_more_labels_than_are_solved_at_once():
    region, _ = rough_region()
    names = [*region.names, *(f"absent {n}" for n in range(12))]
    maps = np.concatenate([region.probabilities, np.zeros((*region.classes.shape, 12), np.float16)], -1)
    many = refined(Region(region.stack, names, region.classes, maps))
    assert np.array_equal(many.classes, refined(region).classes)


@pytest.mark.parametrize("options", [{"trust": 0}, {"contrast": -1.0}, {"across": 3}, {"beta": 1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(FewshotError, match="walker"):
        refined(rough_region()[0], **options)


def test_walk_solves_its_equation():
    """Against a dense solution on a small grid, with a boundary that stays."""
    generator = np.random.default_rng(0)
    shape = (2, 4, 5)
    image = generator.random((1, *shape)).astype(np.float32)
    prior = generator.random((*shape, 1)).astype(np.float32)
    prior = np.concatenate([prior, 1 - prior], -1)
    weight = generator.uniform(0.5, 1, shape).astype(np.float32)
    where = generator.random(shape) < 0.7
    spacing = (2.0, 1.0, 1.0)
    places = list(np.ndindex(shape))
    size = len(places)
    matrix, right = np.zeros((size, size)), np.zeros((size, 2))
    for one, place in enumerate(places):
        if not where[place]:
            matrix[one, one], right[one] = 1, prior[place]
            continue
        matrix[one, one] += weight[place]
        right[one] = weight[place] * prior[place]
        for other, there in enumerate(places):
            apart = np.abs(np.subtract(place, there))
            if apart.sum() == 1:
                tie = np.exp(-((image[0][place] - image[0][there]) ** 2)) + 1e-3
                tie *= (1 / spacing[int(apart.argmax())]) ** 2
                matrix[one, one] += tie
                matrix[one, other] -= tie
    wanted = np.linalg.solve(matrix, right).reshape(*shape, 2)
    found = walk(image, prior, weight, spacing=spacing, contrast=1.0, where=where)
    assert np.abs(found - wanted).max() < 0.01
    assert np.array_equal(found[~where], prior[~where])
