"""A few clicks on a slice become a mask: without a model by growing, with one by asking it."""

import time

import numpy as np
import pytest
import torch
from scipy import ndimage

from fewshot.errors import FewshotError
from fewshot.features import FeatureBank, load_backbone
from fewshot.phantoms import make_study
from fewshot.phantoms.anatomy import ORGANS
from fewshot.refine.carrying import goes_on
from fewshot.refine.clicks import Clicks, segment_clicks, warm_clicks
from fewshot.refine.sam.model import Masks, SamModel
from fewshot.volumes import Volume
from tests.unit.conftest import blobs

BRIGHT, DARK, ELSEWHERE = (12, 14, 4), (28, 20, 3), (12, 30, 4)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def deepest(mask):
    """The pixel in the middle of the largest piece of a 2D mask, and the piece's size."""
    pieces, count = ndimage.label(mask)
    if not count:
        return None, 0
    sizes = np.bincount(pieces.ravel())[1:]
    depth = ndimage.distance_transform_edt(np.pad(pieces == sizes.argmax() + 1, 1))[1:-1, 1:-1]
    return np.unravel_index(int(depth.argmax()), mask.shape), sizes.max()


def annotate(volume, truth, k, tools, *, clicks):
    """Dice on slice k after each click: one in the middle, then always in the middle of the largest error."""
    foreground, background, scores = [(*deepest(truth[:, :, k])[0], k)], [], []
    for _ in range(clicks):
        found = segment_clicks(volume, Clicks(foreground, background), **tools).mask[:, :, k]
        scores.append(dice(found, truth[:, :, k]))
        missed, of_missed = deepest(truth[:, :, k] & ~found)
        extra, of_extra = deepest(found & ~truth[:, :, k])
        if of_missed == of_extra == 0:
            return scores + scores[-1:] * (clicks - len(scores))
        (foreground if of_missed >= of_extra else background).append(
            (*(missed if of_missed >= of_extra else extra), k)
        )
    return scores


@pytest.fixture(scope="module")
def handmade():
    return load_backbone("handmade")


@pytest.fixture
def tools(handmade, bank):
    return {"backbone": handmade, "bank": bank}


def test_one_click_finds_a_blob_on_its_slice(tools):
    volume, labels = blobs(0)
    for click, value in ((BRIGHT, 1), (DARK, 2)):
        found = segment_clicks(volume, Clicks([click]), **tools)
        assert found.how == "walker"
        assert found.mask.shape == volume.shape
        assert np.flatnonzero(found.mask.any((0, 1))).tolist() == [click[2]]
        assert dice(found.mask[:, :, click[2]], (labels == value)[:, :, click[2]]) > 0.85


def test_the_whole_object(tools):
    volume, labels = blobs(0)
    told = []
    found = segment_clicks(
        volume, Clicks([BRIGHT]), whole=True, progress=lambda stage, done, total: told.append(stage), **tools
    )
    assert dice(found.mask, labels == 1) > 0.8
    assert "clicks" in told
    assert {"features", "slices", "volume", "total"} <= set(found.timings)


def test_objects_end(tools):
    """The dark ball is not on the first and last slices."""
    volume, _ = blobs(0)
    shown = segment_clicks(volume, Clicks([DARK]), whole=True, **tools).mask.any((0, 1))
    assert shown[3]
    assert not shown[-1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_viewers_plane(tools, axis):
    volume, _ = blobs(0, (40, 36, 8))
    mask = segment_clicks(volume, Clicks([BRIGHT]), slice_axis=axis, **tools).mask
    others = tuple(other for other in range(3) if other != axis)
    assert np.flatnonzero(mask.any(others)).tolist() == [BRIGHT[axis]]
    assert mask[BRIGHT]


def test_stored_voxel_order_does_not_matter(tools):
    """The same volume stored from its other end."""
    volume, _ = blobs(0)
    turned = Volume(volume.array[::-1, :, ::-1].copy(), volume.affine @ _flip(volume.shape), "MR", "turned")
    there = (volume.shape[0] - 1 - BRIGHT[0], BRIGHT[1], volume.shape[2] - 1 - BRIGHT[2])
    one = segment_clicks(volume, Clicks([BRIGHT]), **tools).mask
    other = segment_clicks(turned, Clicks([there]), **tools).mask
    assert np.array_equal(one, other[::-1, :, ::-1])


def _flip(shape):
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    matrix[0, 3], matrix[2, 3] = shape[0] - 1, shape[2] - 1
    return matrix


def test_background_clicks_remove_and_foreground_clicks_add(tools):
    volume, _ = blobs(0)
    alone = segment_clicks(volume, Clicks([BRIGHT]), **tools).mask
    more = segment_clicks(volume, Clicks([BRIGHT, ELSEWHERE]), **tools).mask
    assert not alone[ELSEWHERE]
    assert more[ELSEWHERE]
    inside = (BRIGHT[0] + 4, BRIGHT[1], BRIGHT[2])
    assert alone[inside]
    less = segment_clicks(volume, Clicks([BRIGHT], [inside]), **tools).mask
    assert not less[inside]
    assert less[BRIGHT]


def test_each_slice_for_itself(tools):
    volume, _ = blobs(0)
    up = (BRIGHT[0], BRIGHT[1], 5)
    both = segment_clicks(volume, Clicks([BRIGHT, up]), **tools).mask
    alone = segment_clicks(volume, Clicks([BRIGHT]), **tools).mask
    assert np.array_equal(both[:, :, 4], alone[:, :, 4])
    assert both[:, :, 5].any()


def test_a_slice_with_background_clicks_only(tools):
    volume, _ = blobs(0)
    wrong = (BRIGHT[0] + 3, BRIGHT[1], 5)
    assert segment_clicks(volume, Clicks([BRIGHT]), whole=True, **tools).mask[wrong]
    found = segment_clicks(volume, Clicks([BRIGHT], [wrong]), whole=True, **tools).mask
    assert not found[wrong]
    assert found[:, :, 4].any()


def test_a_picture(tools):
    volume, labels = blobs(0)
    picture = Volume(volume.array[:, :, 4:5].copy(), volume.affine, "XR", "picture", calibrated=False)
    found = segment_clicks(picture, Clicks([(12, 14, 0)]), whole=True, **tools)
    assert dice(found.mask[:, :, 0], labels[:, :, 4] == 1) > 0.85


@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        (Clicks([]), "no foreground"),
        (Clicks([], [BRIGHT]), "no foreground"),
        (Clicks([(12, 14, 8)]), r"\(12, 14, 8\).*blobs_0.*40 x 36 x 8"),
        (Clicks([BRIGHT], [(-1, 2, 3)]), r"\(-1, 2, 3\).*outside"),
        (Clicks([BRIGHT], [BRIGHT]), r"\(12, 14, 4\).*foreground and as background"),
        (Clicks([(1, 2)]), r"\(i, j, k\)"),
        (Clicks([(1, float("nan"), 3)]), r"\(i, j, k\)"),
    ],
)
def test_bad_clicks_are_refused(tools, clicks, words):
    with pytest.raises(FewshotError, match=words):
        segment_clicks(blobs(0)[0], clicks, **tools)


def test_slices_of_air_are_refused(tools):
    volume, _ = blobs(0)
    array = volume.array.copy()
    array[:, :, 6] = array.min()
    empty = Volume(array, volume.affine, "MR", "holed")
    with pytest.raises(FewshotError, match="Slice 6 of holed"):
        segment_clicks(empty, Clicks([(12, 14, 6)]), **tools)
    flat = Volume(np.full((20, 20, 3), 7, np.float32), np.eye(4), "MR", "flat")
    with pytest.raises(FewshotError, match="Slice 1 of flat"):
        segment_clicks(flat, Clicks([(3, 4, 1)]), **tools)


@pytest.mark.parametrize("axis", [3, -1])
def test_bad_axes_are_refused(tools, axis):
    with pytest.raises(FewshotError, match="axis"):
        segment_clicks(blobs(0)[0], Clicks([BRIGHT]), slice_axis=axis, **tools)


class CountedBackbone:
    """A backbone that counts the images it sees."""

    def __init__(self, backbone):
        self._backbone, self.images = backbone, 0

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def features(self, images):
        self.images += len(images)
        return self._backbone.features(images)


def test_features_are_computed_once(tiny, bank):
    volume, _ = blobs(0)
    counted = CountedBackbone(tiny)
    segment_clicks(volume, Clicks([BRIGHT]), backbone=counted, bank=bank)
    before = counted.images
    assert before <= 2  # the slice, and the black image
    segment_clicks(volume, Clicks([BRIGHT], [ELSEWHERE]), backbone=counted, bank=FeatureBank(bank.folder))
    assert counted.images == before


@pytest.mark.parametrize("slices", [None, [4]])
def test_warm_first_clicks_compute_nothing(tiny, bank, slices):
    volume, _ = blobs(0)
    cold = segment_clicks(volume, Clicks([BRIGHT]), backbone=tiny, bank=FeatureBank(bank.folder / "other"))
    assert warm_clicks(volume, slices, backbone=tiny, bank=bank) == (8 if slices is None else 1)
    counted = CountedBackbone(tiny)
    warm = segment_clicks(volume, Clicks([BRIGHT]), backbone=counted, bank=bank)
    assert counted.images == 0
    assert np.array_equal(cold.mask, warm.mask)
    assert warm_clicks(volume, slices, backbone=tiny, bank=bank) == 0


def test_warming_a_slice_that_is_not_there(tiny, bank):
    with pytest.raises(FewshotError, match="no slice 8"):
        warm_clicks(blobs(0)[0], [8], backbone=tiny, bank=bank)


class Threshold(SamModel):
    """Answers with everything brighter than mid-grey; one of three candidates is the whole slice."""

    kind, name, digest, size, patch, note = "sam", "threshold", "0", 64, 8, "not a real model"
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, kind="sam"):
        self.kind, self.encoded, self.prompts = kind, 0, []

    def encode(self, images):
        self.encoded += len(images)
        padded = np.zeros((len(images), self.size, self.size), np.float16)
        padded[:, : images.shape[1], : images.shape[2]] = images
        return [{"image": image} for image in padded]

    def predict(self, embedding, prompts, frame, *, multimask=False):
        from fewshot.volumes.resizing import resize

        self.prompts += [(prompt, multimask) for prompt in prompts]
        rows, cols = frame.content
        image = resize(np.asarray(embedding["image"], np.float32)[None, :rows, :cols], frame.native)[0]
        own = (image - 0.75) * 10
        every = [np.ones_like(own), own, -np.ones_like(own)] if multimask else [own]
        quality = [0.9, 0.8, 0.7][: len(every)] if multimask else [0.8]
        return Masks(np.array([every] * len(prompts)), np.array([quality] * len(prompts), np.float32))

    def to(self, device):
        return self

    def propagate(self, embeddings, extent, memory, frame, *, notes=None, **_):
        from fewshot.refine.sam2.propagation import Tracked

        for index in extent:
            yield Tracked(index, np.where(memory[min(memory)], 1.0, -1.0), 0.9, 1.0 if index < 6 else -1.0)


def test_sam_is_asked_with_the_clicks(tools):
    volume, labels = blobs(0)
    sam = Threshold()
    found = segment_clicks(volume, Clicks([BRIGHT]), sam=sam, **tools)
    assert found.how == "sam"
    assert found.notes == ["not a real model"]
    assert dice(found.mask[:, :, 4], labels[:, :, 4] == 1) > 0.85  # not the candidate that swallows the slice
    assert sam.prompts[0][1]  # one click says little: several candidates
    segment_clicks(volume, Clicks([BRIGHT], [ELSEWHERE]), sam=sam, **tools)
    assert sam.encoded == 1  # the second click finds the embedding
    prompt, several = sam.prompts[-1]
    assert not several
    assert prompt.labels.tolist() == [1, 0]
    assert len(prompt.points) == 2


def test_sam_goes_from_slice_to_slice(tools):
    volume, labels = blobs(0)
    sam = Threshold()
    found = segment_clicks(volume, Clicks([BRIGHT]), whole=True, sam=sam, **tools)
    assert dice(found.mask, labels == 1) > 0.85
    assert sam.prompts[-1][0].mask is not None
    assert warm_clicks(volume, [4], sam=sam, **tools) == 0


def test_sam_2_follows_by_memory(tools):
    volume, _ = blobs(0)
    found = segment_clicks(volume, Clicks([BRIGHT]), whole=True, sam=Threshold("sam2"), **tools)
    assert found.how == "sam2"
    assert np.flatnonzero(found.mask.any((0, 1))).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_real_sam(tools):
    from fewshot.refine.sam import load_sam

    volume, _ = blobs(0)
    found = segment_clicks(volume, Clicks([BRIGHT]), sam=load_sam("random-tiny", device="cpu"), **tools)
    assert found.mask.shape == volume.shape
    assert not found.mask[:, :, [0, 7]].any()


@pytest.mark.parametrize(
    ("shape", "goes"),
    [((10, 10), True), ((8, 9), True), ((3, 3), False), ((19, 19), False), ((0, 0), False)],
)
def test_where_an_object_ends(shape, goes):
    before, found = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    before[:10, :10] = True
    found[: shape[0], : shape[1]] = True
    assert goes_on(before, found) == goes
    assert not goes_on(before, np.roll(before, 10, axis=1))


@pytest.fixture(scope="module")
def study():
    return make_study(21, shape=(80, 66, 24), orientation="RAS")


def test_phantoms_take_few_clicks(study, bank):
    """The standard of interactive segmentation: clicks in the middle of the largest error."""
    volume, labels = study
    tools = {"backbone": load_backbone("embedded", device="cpu"), "bank": bank}
    scores = []
    for organ in ("liver", "spleen", "kidney_left", "kidney_right"):
        truth = labels == ORGANS[organ]
        scores.append(annotate(volume, truth, int(truth.sum((0, 1)).argmax()), tools, clicks=5))
    after_one, after_all = np.mean(scores, axis=0)[[0, -1]]
    assert after_one > 0.7
    assert after_all > 0.85


def test_a_second_click_is_quick(study, tools):
    volume, labels = study
    places = np.argwhere(labels == ORGANS["liver"])
    click = tuple(places[len(places) // 2])
    segment_clicks(volume, Clicks([click]), **tools)
    start = time.process_time()
    segment_clicks(volume, Clicks([click]), **tools)
    assert time.process_time() - start < 2
