"""The whole road on made-up volumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot import pipeline
from fewshot.adapters import ADAPTERS
from fewshot.errors import FewshotError
from fewshot.features import load_backbone
from fewshot.model import load_model
from fewshot.support import Template
from fewshot.volumes import SliceSpec, Volume
from tests.unit.atlas.bodies import grid_points, moved_points, rotation
from tests.unit.conftest import blobs

NAMES = {"bright": 1, "dark": 2}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def embedded():
    return load_backbone("embedded", device="cpu")


@pytest.fixture(scope="module")
def shared_bank(tmp_path_factory):
    from fewshot.features import FeatureBank

    return FeatureBank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def model(embedded, shared_bank):
    return pipeline.fit([Template(*blobs(0), NAMES)], backbone=embedded, bank=shared_bank)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_template_is_enough_to_find_the_structures_elsewhere(adapter, embedded, shared_bank):
    template, (query, truth) = Template(*blobs(0), NAMES), blobs(1, shift=(3, -2))
    fitted = pipeline.fit([template], adapter=adapter, backbone=embedded, bank=shared_bank)
    prediction = pipeline.predict(query, fitted, backbone=embedded, bank=shared_bank)
    assert prediction.labels.shape == truth.shape
    assert prediction.labels.dtype == np.uint8
    floor = 0.75 if ADAPTERS[adapter].trained else 0.2
    assert min(dice(prediction.labels == v, truth == v) for v in (1, 2)) > floor


def test_the_result_says_what_it_is(model, embedded, shared_bank):
    query, _ = blobs(2)
    prediction = pipeline.predict(query, model, backbone=embedded, bank=shared_bank, probabilities=True)
    assert set(prediction.confidence) == set(prediction.empty_slices) == {"bright", "dark"}
    for name, value in NAMES.items():
        shown = (prediction.labels == value).any((0, 1))
        assert prediction.empty_slices[name] == np.flatnonzero(~shown).tolist()
        assert 0.3 < prediction.confidence[name] <= 1
    assert prediction.provenance["model"] == model.digest
    assert prediction.provenance["templates"] == ["blobs_0"]
    assert prediction.timings["total"] == pytest.approx(
        sum(v for k, v in prediction.timings.items() if k != "total")
    )
    assert prediction.probabilities.shape == (3, *query.array.shape)
    np.testing.assert_allclose(prediction.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    agree = prediction.probabilities.argmax(0) == prediction.labels
    assert agree.mean() > 0.97, "only dropped components may differ"


def test_values_are_those_asked_for(embedded, shared_bank):
    fitted = pipeline.fit(
        [Template(*blobs(0), NAMES)], labels={"dark": 300, "bright": 5}, backbone=embedded, bank=shared_bank
    )
    query, truth = blobs(1)
    prediction = pipeline.predict(query, fitted, backbone=embedded, bank=shared_bank)
    assert prediction.labels.dtype == np.uint16
    assert dice(prediction.labels == 300, truth == 2) > 0.7
    assert dice(prediction.labels == 5, truth == 1) > 0.7


@pytest.mark.parametrize("flip", [0, 1, 2, (0, 1), "transpose"])
def test_storage_order_of_the_query_does_not_matter(model, embedded, shared_bank, flip):
    query, _ = blobs(1)
    plain = pipeline.predict(query, model, backbone=embedded, bank=shared_bank).labels
    affine = query.affine.copy()
    if flip == "transpose":
        array, affine = query.array.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    else:
        axes = (flip,) if isinstance(flip, int) else flip
        array = np.flip(query.array, axes)
        for axis in axes:
            affine[:3, 3] += affine[:3, axis] * (query.array.shape[axis] - 1)
            affine[:3, axis] *= -1
    stored = Volume(np.ascontiguousarray(array), affine, "MR", "stored", None, True, ())
    predicted = pipeline.predict(stored, model, backbone=embedded, bank=shared_bank).labels
    back = predicted.transpose(1, 2, 0) if flip == "transpose" else np.flip(predicted, axes)
    np.testing.assert_array_equal(back, plain)


def test_a_saved_model_predicts_the_same(model, embedded, shared_bank, tmp_path):
    model.save(tmp_path / "adapter.safetensors")
    again = load_model(tmp_path / "adapter.safetensors")
    assert again.digest == model.digest
    query, _ = blobs(3)
    one = pipeline.predict(query, model, backbone=embedded, bank=shared_bank)
    two = pipeline.predict(query, again, backbone=embedded, bank=shared_bank)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.confidence == two.confidence


def test_the_same_seed_fits_the_same_model(model, embedded, shared_bank):
    again = pipeline.fit([Template(*blobs(0), NAMES)], backbone=embedded, bank=shared_bank)
    for name, value in model.adapter.state_dict().items():
        torch.testing.assert_close(again.adapter.state_dict()[name], value, rtol=0, atol=0)


def test_a_constant_volume_is_left_empty_and_says_so(model, embedded, shared_bank):
    empty = Volume(
        np.full((16, 16, 4), 7, np.float32), np.diag([2.0, 2.0, 6.0, 1.0]), "MR", "flat", None, True, ()
    )
    prediction = pipeline.predict(empty, model, backbone=embedded, bank=shared_bank)
    assert not prediction.labels.any()
    assert prediction.confidence == {"bright": None, "dark": None}
    assert any("all air" in note for note in prediction.notes)


def test_two_dimensional_images_work(embedded, shared_bank):
    def picture(seed):
        volume, labels = blobs(seed)
        flat = Volume(volume.array[:, :, 4:5], np.eye(4), "XR", f"picture_{seed}", None, False, ())
        return flat, labels[:, :, 4:5]

    fitted = pipeline.fit([Template(*picture(0), NAMES)], backbone=embedded, bank=shared_bank)
    query, truth = picture(1)
    prediction = pipeline.predict(query, fitted, backbone=embedded, bank=shared_bank)
    assert dice(prediction.labels == 1, truth == 1) > 0.7


def test_warming_makes_the_next_prediction_start_at_once(model, embedded, shared_bank):
    query, _ = blobs(11)
    assert pipeline.warm(query, model.spec, backbone=embedded, bank=shared_bank).fresh
    prediction = pipeline.predict(query, model, backbone=embedded, bank=shared_bank)
    assert prediction.provenance["features_from_bank"]


def test_cancelling_from_progress_stops_the_work(embedded, shared_bank):
    class Cancelled(Exception):
        pass

    def cancel(stage, done, total, **values):
        if stage == "train" and done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.fit([Template(*blobs(0), NAMES)], backbone=embedded, bank=shared_bank, progress=cancel)


def test_wrong_requests_are_refused_in_words(model, embedded, shared_bank, tiny):
    query, _ = blobs(1)
    fit, predict = pipeline.fit, pipeline.predict
    with pytest.raises(FewshotError, match="label a structure in at least one volume"):
        fit([], backbone=embedded, bank=shared_bank)
    with pytest.raises(FewshotError, match="no adapter 'magic'"):
        fit([Template(*blobs(0), NAMES)], adapter="magic", backbone=embedded, bank=shared_bank)
    with pytest.raises(FewshotError, match="No template shows liver"):
        fit([Template(*blobs(0), NAMES)], labels={"liver": 1}, backbone=embedded, bank=shared_bank)
    with pytest.raises(FewshotError, match="fitted on features of backbone embedded"):
        predict(query, model, backbone=tiny, bank=shared_bank)
    with pytest.raises(FewshotError, match="not 'some'"):
        predict(query, model, backbone=embedded, bank=shared_bank, components="some")
    with pytest.raises(FewshotError, match="no option colour"):
        fit([Template(*blobs(0), NAMES)], options={"colour": 1}, backbone=embedded, bank=shared_bank)


def test_plane_can_be_told(embedded, shared_bank):
    fitted = pipeline.fit(
        [Template(*blobs(0), NAMES)], backbone=embedded, bank=shared_bank, spec=SliceSpec(plane="coronal")
    )
    assert fitted.spec.plane == "coronal"
    query, truth = blobs(1)
    prediction = pipeline.predict(query, fitted, backbone=embedded, bank=shared_bank)
    assert prediction.provenance["spec"]["plane"] == "coronal"
    assert dice(prediction.labels == 1, truth == 1) > 0.5


# the default adapter: appearance and place

TWINS = {"left": 1, "right": 2}
TWIN_SPEC = SliceSpec(plane="axial", size=64)
COULD_NOT = "could not be registered"


@pytest.fixture(scope="module")
def handmade():
    return load_backbone("handmade", device="cpu")


def twins(seed, *, complete=True, turned=0.0, shift=(0, 0, 0), slices=slice(None)):
    """A body with two balls that look the same, one on each side."""
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = [-48, -42, -25]
    points = moved_points(grid_points((33, 29, 11), affine), rotation(turned), shift, 1.0)
    image = 4 * np.random.default_rng(seed).standard_normal(points.shape[:-1])
    labels = np.zeros(points.shape[:-1], np.uint16)
    for centre, radii, brightness, label in (
        ((0, 0, 0), (44, 37, 90), 60, 0),
        ((0, -24, 0), (9, 7, 90), 120, 0),
        ((0, 20, -8), (14, 7, 12), 20, 0),
        ((-22, 2, 0), (11, 13, 17), 100, 1),
        ((22, 2, 0), (11, 13, 17), 100, 2),
    ):
        inside = (((points - centre) / radii) ** 2).sum(-1) < 1
        image[inside] += brightness - (60 if radii[0] < 44 else 0)
        labels[inside] = label
    kept = np.zeros_like(labels)
    kept[:, :, slices] = labels[:, :, slices]
    volume = Volume(image.astype(np.float32), affine, "MR", f"twins_{seed}")
    return Template(volume, kept, TWINS, complete)


def scores_of(templates, query, backbone, bank, **arguments):
    fitted = pipeline.fit(templates, backbone=backbone, bank=bank, spec=TWIN_SPEC, **arguments)
    prediction = pipeline.predict(query.volume, fitted, backbone=backbone, bank=bank)
    return [dice(prediction.labels == v, query.labels == v) for v in (1, 2)], fitted, prediction


def test_place_tells_apart_what_looks_the_same(handmade, shared_bank):
    template, query = twins(0), twins(1, turned=5, shift=(3, -3, 2))
    fast = {"options": {"epochs": 6}}
    placed, _, prediction = scores_of([template], query, handmade, shared_bank, **fast)
    by_looks, _, _ = scores_of([template], query, handmade, shared_bank, adapter="contrastive", **fast)
    assert min(placed) > 0.75
    assert min(placed) > min(by_looks) + 0.15
    assert not any(COULD_NOT in note for note in prediction.notes)
    assert prediction.timings["atlas"] > 0


def test_a_partly_labelled_template_places_its_labels_as_well(handmade, shared_bank):
    template = twins(0, complete=False, slices=[3, 5, 7])
    query = twins(1, turned=5, shift=(3, -3, 2))
    placed, fitted, prediction = scores_of([template], query, handmade, shared_bank, options={"epochs": 6})
    assert min(placed) > 0.6
    assert "expected_dice" not in fitted.scores
    assert "expected_dice" not in prediction.provenance


def test_several_templates_say_what_to_expect(handmade, shared_bank, tmp_path):
    templates, query = [twins(0), twins(2, turned=-4)], twins(1, turned=5, shift=(3, -3, 2))
    placed, fitted, prediction = scores_of(templates, query, handmade, shared_bank, options={"epochs": 6})
    assert fitted.scores["other_patients"] == 1
    assert prediction.provenance["expected_dice"] == round(fitted.scores["expected_dice"], 3)
    assert abs(np.mean(placed) - fitted.scores["expected_dice"]) < 0.25
    fitted.save(tmp_path / "twins.safetensors")
    again = load_model(tmp_path / "twins.safetensors")
    assert again.adapter.options == fitted.adapter.options, "what was chosen travels with the model"
    repeated = pipeline.predict(query.volume, again, backbone=handmade, bank=shared_bank)
    np.testing.assert_array_equal(repeated.labels, prediction.labels)
    # the middle slice as a picture, and noise: neither has anything in common with the templates
    flat = query.volume.array[:, :, 5:6]
    noise = np.random.default_rng(5).standard_normal(query.volume.shape)
    for array in (flat, noise.astype(np.float32)):
        strange = Volume(array, query.volume.affine, "MR", "strange")
        prediction = pipeline.predict(strange, fitted, backbone=handmade, bank=shared_bank)
        assert any(COULD_NOT in note for note in prediction.notes)
        assert prediction.labels.shape == array.shape


def test_a_model_of_pictures_looks_at_a_volume_by_appearance_alone(handmade, shared_bank):
    of = twins(0)
    picture = Volume(of.volume.array[:, :, 5:6], of.volume.affine, "MR", "picture")
    fitted = pipeline.fit(
        [Template(picture, of.labels[:, :, 5:6], TWINS)],
        backbone=handmade, bank=shared_bank, spec=TWIN_SPEC, options={"epochs": 2},
    )  # fmt: skip
    prediction = pipeline.predict(of.volume, fitted, backbone=handmade, bank=shared_bank)
    assert prediction.labels.any()
    assert any(COULD_NOT in note for note in prediction.notes)


def test_a_label_that_only_a_template_without_registration_shows_is_still_found(handmade, shared_bank):
    """Its place is unknown; that must not forbid it."""
    first = twins(0)
    bright = np.random.default_rng(9).standard_normal(first.volume.shape) * 4 + 60
    ball = first.labels == 2
    bright[ball] = 200
    flat = Volume(bright[:, :, 5:6].astype(np.float32), first.volume.affine, "MR", "picture")
    stranger = Template(flat, 7 * ball[:, :, 5:6].astype(np.uint16), {"lesion": 7})
    only_left = Template(first.volume, np.where(first.labels == 1, 1, 0).astype(np.uint16), {"left": 1})
    query = twins(1)
    query.volume.array[12:16, 20:24, 4:7] = 200
    fitted = pipeline.fit(
        [only_left, stranger], backbone=handmade, bank=shared_bank, spec=TWIN_SPEC, options={"epochs": 6}
    )
    with_place = fitted.atlas.locate(pipeline.SliceStack(query.volume, fitted.spec, patch=handmade.patch))
    assert [template.drawn.tolist() for template, _ in with_place.found] == [[True, False]]
    prediction = pipeline.predict(query.volume, fitted, backbone=handmade, bank=shared_bank, components="all")
    assert (prediction.labels[13:15, 21:23, 5] == 2).mean() > 0.5
    alone = pipeline.predict(
        query.volume, replace(fitted, atlas=None), backbone=handmade, bank=shared_bank, components="all"
    )
    assert not (prediction.labels[alone.labels == 0] == 2).any(), (
        "what looks like background stays background"
    )
