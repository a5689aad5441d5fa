"""The whole road on made-up volumes."""

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
