"""PerSAM: learned on template slices, pointed by similarity, decoded with guidance, volumes there and back."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from fewshot.baselines import create_baseline
from fewshot.baselines.persam import PerSAM, baseline
from fewshot.baselines.persam.cascade import box_of
from fewshot.baselines.persam.target import largest_slices
from fewshot.errors import FewshotError
from fewshot.refine.sam import choose_sam
from fewshot.refine.sam.model import Masks, SamModel
from fewshot.support import Template
from fewshot.volumes import SliceSpec, SliceStack, Volume
from tests.unit.conftest import blobs

NAMES = {"bright": 1, "dark": 2}


class Eyes(SamModel):
    """Sees how bright a patch is, and answers with the connected pixels that are as bright as the positive point."""

    kind, name, digest, size, patch = "sam", "eyes", "eyes", 64, 8
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        parts = SimpleNamespace(layers=[], register_forward_pre_hook=lambda _: SimpleNamespace(remove=bool))
        parts.final_attn_token_to_image = SimpleNamespace(
            register_forward_pre_hook=lambda *_, **__: SimpleNamespace(remove=bool)
        )
        self.network = SimpleNamespace(mask_decoder=SimpleNamespace(transformer=parts))
        self.asked = []

    def encode(self, images):
        self.shapes = images.shape
        square = np.zeros((len(images), self.size, self.size), np.float32)
        square[:, : images.shape[1], : images.shape[2]] = images
        mean = square.reshape(len(images), 8, 8, 8, 8).mean((2, 4))
        bins = np.exp(-(((mean[:, None] - np.linspace(0, 1, 8)[:, None, None]) * 8) ** 2))
        return [
            {"image": of.astype(np.float16), "pixels": pixels}
            for of, pixels in zip(bins, square, strict=True)
        ]

    def predict(self, embedding, prompts, frame, *, multimask=False):
        self.asked += [(prompt, multimask) for prompt in prompts]
        content = embedding["pixels"][: frame.content[0], : frame.content[1]]
        native = ndimage.zoom(content, np.divide(frame.native, content.shape), order=1)
        logits = []
        for prompt in prompts:
            row, col = prompt.points[0].astype(int)
            parts, _ = ndimage.label(abs(native - native[row, col]) < 0.15)
            inside = (parts == parts[row, col]) & (parts > 0)
            logits.append(np.where(inside, 5.0, -5.0))
        found = np.stack(logits)[:, None].astype(np.float32).repeat(3 if multimask else 1, 1)
        return Masks(found, np.zeros(found.shape[:2], np.float32))

    def to(self, device):
        return self


@pytest.fixture
def eyes(monkeypatch):
    model = Eyes()
    monkeypatch.setattr(baseline, "_model", lambda name, device: model)
    monkeypatch.setattr("fewshot.baselines.persam.target.features_of", only_image)
    monkeypatch.setattr("fewshot.baselines.persam.cascade.features_of", only_image)
    monkeypatch.setattr("fewshot.baselines.persam.learning.features_of", only_image)
    return model


def only_image(embedding):
    return torch.from_numpy(embedding["image"].astype(np.float32))


def disc(row, col, *, name="disc", slices=(1, 2, 3), shape=(48, 64, 5)):
    """A bright disc in some slices of a grey volume, one black corner, and its label."""
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    inside = (x - row) ** 2 + (y - col) ** 2 < 10**2
    image = np.full(shape, 100, np.float32)
    image[:6, :6] = 0
    labels = np.zeros(shape, np.uint16)
    for index in slices:
        image[inside, index] = 200
        labels[inside, index] = 1
    volume = Volume(image, np.diag([1.0, 1.0, 5.0, 1.0]), "MR", name, None, True, ())
    return volume, labels


def dice(found, wanted):
    return 2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum())


# A case in which it must succeed


@pytest.mark.parametrize("options", [{}, {"template_slices": 3}, {"fine_tuned": True}, {"decodings": 1}])
def test_it_finds_a_disc_again_elsewhere_and_leaves_it_out_where_there_is_none(eyes, options):
    volume, labels = disc(16, 18)
    query, wanted = disc(30, 44, name="query", slices=(0, 3))
    fitted = create_baseline("persam", options)
    fitted.fit([Template(volume, labels, {"disc": 1})], {"disc": 7})
    found = fitted.predict(query)
    assert dice(found.labels == 7, wanted > 0) > 0.95
    assert found.empty_slices == {"disc": [1, 2, 4]}
    assert found.provenance["left_out"] == {"disc": 3}
    assert found.provenance["encoded"] == 5
    assert found.probabilities[1][wanted > 0].min() > 0.9
    assert found.confidence["disc"] > 0.9


def test_as_published_every_slice_gets_a_mask(eyes):
    volume, labels = disc(16, 18)
    query, _ = disc(30, 44, slices=(3,))
    fitted = create_baseline("persam", {"reject": False})
    fitted.fit([Template(volume, labels, {"disc": 1})], {"disc": 1})
    found = fitted.predict(query)
    assert found.empty_slices == {"disc": []}
    assert found.provenance["left_out"] == {"disc": 0}


def test_the_cascade_gives_points_then_the_mask_then_its_box(eyes):
    volume, labels = disc(16, 18)
    fitted = create_baseline("persam")
    fitted.fit([Template(volume, labels, {"disc": 1})], {"disc": 1})
    assert eyes.shapes == (1, 64, 48)  # without padding: the model does that
    fitted.predict(disc(30, 44, slices=(3,))[0])
    (first, one), (second, three), (third, _) = eyes.asked
    assert (one, three) == (False, True)
    assert first.labels.tolist() == [1, 0]
    assert first.mask is None
    assert first.box is None
    assert (second.mask > 0).sum() == (third.mask > 0).sum() > 200
    assert second.box is None
    assert third.box == box_of(third.mask > 0)
    row, col = first.points[0]
    assert third.box[0] <= row <= third.box[2]
    assert third.box[1] <= col <= third.box[3]


def test_a_mask_that_became_empty_stays_empty(eyes):
    class Blind(Eyes):
        def predict(self, embedding, prompts, frame, *, multimask=False):
            found = super().predict(embedding, prompts, frame, multimask=multimask)
            return Masks(-abs(found.logits), found.quality)

    volume, labels = disc(16, 18)
    fitted = create_baseline("persam")
    fitted.fit([Template(volume, labels, {"disc": 1})], {"disc": 1})
    fitted._sam = Blind()
    found = fitted.predict(volume)
    assert not found.labels.any()
    assert found.confidence == {"disc": None}


def test_the_largest_slices_are_taken_from_all_templates_in_turn():
    templates = []
    for name, sizes in (("a", {0: 3, 1: 9, 2: 5}), ("b", {1: 4})):
        volume, _ = blobs(0, (20, 20, 4))
        labels = np.zeros((20, 20, 4), np.uint16)
        for index, size in sizes.items():
            labels[:size, 5, index] = 1
        volume = Volume(volume.array, volume.affine, "MR", name, None, True, ())
        templates.append(Template(volume, labels, {"line": 1}))
    stacks = [SliceStack(of.volume, SliceSpec(plane="axial"), patch=8) for of in templates]
    order = [0, 1, 2, 3] if stacks[0].upright else [3, 2, 1, 0]
    found = largest_slices(templates, stacks, "line", 3)
    assert [(of.template, of.index) for of in found] == [(0, order[1]), (1, order[1]), (0, order[2])]


# The real network


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_random_weights_go_through_a_volume_and_say_so(fine_tuned):
    volume, labels = blobs(0)
    query, _ = blobs(1, shift=(2, 1))
    fitted = create_baseline("persam", {"sam": "random-tiny", "reject": False, "fine_tuned": fine_tuned})
    told = []
    scores = fitted.fit(
        [Template(volume, labels, NAMES)],
        NAMES,
        progress=lambda stage, done, total, **_: told.append((stage, done, total)),
    )
    assert set(scores) == ({"loss"} if fine_tuned else set())
    assert told[0][0] == "train"
    told.clear()
    first = fitted.predict(query, progress=lambda *stage, **_: told.append(stage))
    assert told == [("predict", done, 8) for done in range(1, 9)]
    assert fitted.note == "random weights"
    assert fitted.note in first.notes
    assert first.labels.shape == query.shape
    assert set(np.unique(first.labels)) <= {0, 1, 2}
    np.testing.assert_allclose(first.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    assert first.provenance["weights"] == fitted._sam.digest
    assert [len(of) for of in first.provenance["template_slices"].values()] == [1, 1]
    again = fitted.predict(query)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_a_constant_volume_has_no_labels():
    volume, labels = blobs(0)
    fitted = create_baseline("persam", {"sam": "random-tiny"})
    fitted.fit([Template(volume, labels, NAMES)], NAMES)
    empty = Volume(np.zeros((40, 36, 8), np.float32), volume.affine, "MR", "empty", None, True, ())
    found = fitted.predict(empty)
    assert not found.labels.any()
    assert any("nothing to look for" in note for note in found.notes)


# What it refuses


def test_without_weights_it_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("fewshot.refine.sam.choose_sam", lambda kind=None: None)
    with pytest.raises(FewshotError, match=r"^Baseline persam needs weights .* --set persam.sam=NAME\.$"):
        create_baseline("persam")


def test_it_takes_what_is_at_hand(monkeypatch):
    monkeypatch.setattr("fewshot.refine.sam.choose_sam", lambda kind=None: {"sam": "random-tiny"}[kind])
    assert create_baseline("persam").provenance()["sam"] == "random-tiny"
    assert callable(choose_sam)


@pytest.mark.parametrize("name", ["random-tiny-2", "sam2.1_hiera_tiny"])
def test_sam_2_is_refused_before_anything_is_loaded(monkeypatch, name):
    monkeypatch.setattr("fewshot.refine.sam.load_sam", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(FewshotError, match=f"{name} is a SAM 2 model: give another"):
        create_baseline("persam", {"sam": name})


def test_options_are_checked_and_fitting_comes_first():
    with pytest.raises(FewshotError, match="has no option threshold"):
        create_baseline("persam", {"threshold": 0.5})
    with pytest.raises(FewshotError, match="template_slices"):
        create_baseline("persam", {"template_slices": 0})
    with pytest.raises(FewshotError, match="fit it first"):
        create_baseline("persam", {"sam": "random-tiny"}).predict(blobs(0)[0])
    volume, labels = blobs(0)
    with pytest.raises(FewshotError, match="No template shows liver"):
        create_baseline("persam", {"sam": "random-tiny"}).fit([Template(volume, labels, NAMES)], {"liver": 1})
    assert PerSAM.Options().decodings == 3
