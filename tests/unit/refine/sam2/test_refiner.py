import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank
from fewshot.refine.base import Region
from fewshot.refine.sam2.objects import objects_of
from fewshot.refine.sam2.refiner import Sam2Options, Sam2Refiner
from fewshot.settings import checked_options
from fewshot.support import Template
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.conftest import blobs

ANYTHING = {"quality": -0.5, "agreement": 0.001, "growth": 9e5, "body": 0.999}
"""Random weights make masks that no strict rule takes."""


@pytest.fixture(scope="module")
def region():
    volume, labels = blobs(0)
    stack = SliceStack(volume, SliceSpec(), patch=1)
    return Region(stack, ["bright", "dark"], stack.slices(labels))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    return FeatureBank(tmp_path_factory.mktemp("bank"))


def refiner(sam, bank, **options):
    return Sam2Refiner(Sam2Options(**{**ANYTHING, **options}), sam=sam, bank=bank)


def test_it_follows_every_component_and_says_what_it_did(sam, warm, region):
    refined = refiner(sam, warm, margin=1).refine(region)
    said = refined.provenance
    assert refined.classes.shape == region.classes.shape
    assert refined.classes.dtype == region.classes.dtype
    assert set(np.unique(refined.classes)) <= {0, 1, 2}
    assert (said["sam"], said["digest"], said["memory"]) == ("random-tiny-2", sam.digest, "slice")
    assert said["objects"] == 2
    assert 0 < said["taken"] <= said["masks"]
    assert (refined.classes != region.classes).any()
    assert refined.notes[0] == "random weights"


def test_a_second_time_nothing_is_encoded_and_the_answer_is_the_same(sam, bank, region):
    first = refiner(sam, bank).refine(region, seed=3)
    second = refiner(sam, bank).refine(region, seed=3)
    assert first.provenance["encoded"] == first.provenance["slices"] > 0
    assert second.provenance["encoded"] == 0
    np.testing.assert_array_equal(first.classes, second.classes)


def test_masks_that_are_not_taken_leave_what_was_localised(sam, warm, region):
    refined = refiner(sam, warm, quality=0.9999).refine(region)
    np.testing.assert_array_equal(refined.classes, region.classes)
    assert refined.provenance["taken"] == 0
    assert "SAM 2's mask was not taken for" in refined.notes[-1]
    assert "unsure" in refined.notes[-1]


def test_templates_are_remembered(sam, warm, region):
    volume, labels = blobs(1)
    own = refiner(sam, warm).refine(region)
    by_template = refiner(sam, warm, memory="template", references=2)
    by_template.remember([Template(volume, labels, {"bright": 1, "dark": 2})])
    refined = by_template.refine(region)
    assert refined.provenance["memory"] == "template"
    assert len(refined.provenance["references"]) == 4
    assert refined.provenance["references"][0].startswith("bright: blobs_1 slice ")
    assert (refined.classes != own.classes).any()


def test_without_templates_it_begins_with_a_slice_and_says_so(sam, warm, region):
    refined = refiner(sam, warm, memory="template").refine(region)
    assert refined.provenance["memory"] == "slice"
    assert "no template shows bright: SAM 2 began with its own mask of one slice" in refined.notes
    np.testing.assert_array_equal(refined.classes, refiner(sam, warm).refine(region).classes)


def test_components_are_told_apart_and_small_ones_left_out():
    classes = np.zeros((6, 20, 20), np.uint16)
    classes[1:4, 2:6, 2:6] = 1
    classes[1:4, 2:6, 6:9] = 2  # touches the first
    classes[5, 15, 15] = 1
    found = list(objects_of(classes, 2))
    assert [(each.label, each.number, each.extent) for each in found] == [
        (1, 0, range(1, 4)),
        (2, 0, range(1, 4)),
    ]
    np.testing.assert_array_equal(found[1].mask(2), classes[2] == 2)
    assert found[0].mask(4) is None
    assert len(list(objects_of(classes))) == 3


@pytest.mark.parametrize(
    ("option", "said"),
    [({"memory": "video"}, "slice or template"), ({"prompts": "guess"}, "no prompt strategy 'guess'")],
)
def test_bad_options_are_refused(sam, warm, option, said):
    with pytest.raises(FewshotError, match=said):
        refiner(sam, warm, **option)
    with pytest.raises(FewshotError, match="has no option depth"):
        checked_options("refinement sam2", Sam2Options, {"depth": 3})
