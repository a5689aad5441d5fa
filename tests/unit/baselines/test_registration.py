"""Label transfer by registration on made-up pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fewshot.baselines import create_baseline
from fewshot.baselines.alignment import Picture
from fewshot.baselines.common import fill_between
from fewshot.errors import FewshotError
from fewshot.support import Template
from fewshot.volumes import Volume

LABELS = {"bright": 3, "dark": 7}
QUICK = {"max_voxels": 30_000, "samples": 1500, "affine_iterations": 40, "spline_iterations": 6, "grid": 0.25}


def scene(
    shape=(40, 44, 30), *, warp=None, noise=0.0, spacing=(1.0, 1.0, 1.0), name="scene", calibrated=True
):
    """An ellipsoid with a bright and a dark part inside; ``warp`` moves places [3, N] before drawing."""
    x = np.stack(
        np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    )
    if warp is not None:
        x = warp(x)
    image = np.zeros(shape)
    labels = np.zeros(shape, np.uint16)
    for centre, radii, value, label in (
        ((0, 0, 0), (0.75, 0.8, 0.85), 60, 0),
        ((-0.3, 0.1, 0), (0.25, 0.4, 0.45), 140, 3),
        ((0.35, -0.15, 0.1), (0.22, 0.3, 0.4), 20, 7),
        ((0.1, 0.55, 0.2), (0.12, 0.12, 0.2), 180, 0),
    ):
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(x, centre, radii, strict=True)) < 1
        image[inside] = value
        labels[inside] = label
    image = ndimage.gaussian_filter(image, [0.7 if n > 1 else 0 for n in shape])
    image += noise * np.random.default_rng(0).standard_normal(shape)
    affine = np.diag([*spacing, 1.0])
    volume = Volume(image.astype(np.float32), affine, modality="MR", name=name, calibrated=calibrated)
    return volume, labels


def moved(x):
    """Rotation by 12 degrees, scaling, shift and a smooth bulge."""
    angle = np.radians(12)
    a, b = np.cos(angle) * x[0] - np.sin(angle) * x[1], np.sin(angle) * x[0] + np.cos(angle) * x[1]
    bulge = 0.1 * np.sin(2.5 * x[1] + 0.5)
    return np.stack([1.1 * a + 0.15 + bulge, 0.95 * b - 0.1, x[2] * 1.05 + 0.08 * np.cos(2 * x[0])])


def dice(found, truth, value):
    return 2 * ((found == value) & (truth == value)).sum() / ((found == value).sum() + (truth == value).sum())


def template(**settings):
    volume, labels = scene(name="template", **settings)
    return Template(volume, labels, LABELS, complete=True)


def fitted(*templates, **options):
    baseline = create_baseline("registration", {**QUICK, **options})
    assert baseline.fit(list(templates), LABELS, seed=1) == {}
    return baseline


def test_follows_rotation_scaling_and_bulge():
    support = template()
    query, truth = scene(warp=moved, noise=3, name="query")
    calls = []
    found = fitted(support, grid=0.15, spline_iterations=8).predict(
        query, progress=lambda *given, **_: calls.append(given)
    )
    affine = fitted(support, bspline=False).predict(query)
    for value in LABELS.values():
        assert dice(found.labels, truth, value) > 0.85
        assert dice(found.labels, truth, value) > dice(support.labels, truth, value) + 0.25
        assert dice(affine.labels, truth, value) > dice(support.labels, truth, value) + 0.15
    assert (
        np.mean([dice(found.labels, truth, v) - dice(affine.labels, truth, v) for v in LABELS.values()])
        > 0.02
    )
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float16
    assert found.probabilities.shape == (3, *query.shape)
    assert np.allclose(found.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    assert np.array_equal(np.array([0, 3, 7])[found.probabilities.argmax(0)], found.labels)
    assert set(found.timings) == {"registration", "total"}
    assert found.confidence["bright"] is not None
    assert 0.5 < found.confidence["bright"] <= 1
    bare = np.flatnonzero(~(found.labels == 3).any((0, 1)))
    assert found.empty_slices["bright"] == bare.tolist()
    assert calls == [("predict", 1, 1)]
    assert found.notes == []


def test_same_seed_same_result_for_any_number_of_threads():
    small = {"shape": (96, 80, 1)}
    pair = (template(**small), template(**small, warp=lambda x: 1.05 * x))
    query, _ = scene((96, 80, 1), warp=lambda x: moved(x) * np.array([1, 1, 0])[:, None, None, None])
    first, second = (fitted(*pair, threads=threads).predict(query) for threads in (1, 2))
    assert np.array_equal(first.probabilities, second.probabilities)
    assert np.array_equal(first.labels, second.labels)


def test_same_seed_same_result_in_three_dimensions():
    support = template(shape=(24, 24, 20))
    query, _ = scene((24, 24, 20), warp=moved, name="query")
    first, second = (fitted(support, samples=500, spline_iterations=2).predict(query) for _ in range(2))
    assert np.array_equal(first.probabilities, second.probabilities)


def test_voxel_order_and_size_do_not_matter():
    query, truth = scene(warp=moved, name="query")
    shift = np.array([500.0, -300, 80])
    affine = np.diag([-1.0, 1, -1, 1])
    affine[:3, 3] = shift
    flipped = Volume(query.array[::-1, :, ::-1].copy(), affine, modality="MR", name="flipped")
    found = fitted(template(), bspline=False).predict(flipped).labels[::-1, :, ::-1]
    assert dice(found, truth, 3) > 0.7


def test_single_slices():
    support = template(shape=(96, 80, 1))
    query, truth = scene(
        (96, 80, 1), warp=lambda x: moved(x) * np.array([1, 1, 0])[:, None, None, None], noise=3
    )
    found = fitted(support).predict(query)
    assert found.labels.shape == query.shape
    assert dice(found.labels, truth, 3) > 0.85
    assert dice(found.labels, truth, 7) > 0.85


def test_pictures_of_different_size_without_calibration():
    support = template(shape=(96, 80, 1), calibrated=False)
    query, truth = scene((192, 160, 1), calibrated=False)
    found = fitted(support, bspline=False).predict(query)
    assert dice(found.labels, truth, 3) > 0.9


def test_a_slice_and_a_volume_are_refused():
    query, _ = scene((40, 44, 1), name="flat")
    with pytest.raises(FewshotError, match="flat and the template template are not both"):
        fitted(template()).predict(query)


def test_few_thick_slices():
    support = template(shape=(48, 48, 8), spacing=(1, 1, 5))
    query, truth = scene((48, 48, 9), warp=moved, spacing=(1, 1, 5))
    found = fitted(support, bspline=False).predict(query)
    assert dice(found.labels, truth, 3) > 0.7
    assert dice(found.labels, truth, 3) > dice(support.labels, truth[..., :8], 3) + 0.2


def test_two_slices_are_enough():
    volume, labels = scene((40, 44, 4), spacing=(1, 1, 9))
    middle = Volume(volume.array[..., 1:3], volume.affine, modality="MR", name="two")
    support = Template(middle, labels[..., 1:3], LABELS, complete=True)
    found = fitted(support).predict(middle)
    assert dice(found.labels, labels[..., 1:3], 3) > 0.9
    assert found.notes == []


@pytest.fixture
def partial():
    """The scene with three slices labelled in the middle."""
    volume, labels = scene(name="partial")
    kept = np.zeros_like(labels)
    kept[..., 11:20:4] = labels[..., 11:20:4]
    return Template(volume, kept, LABELS)


def test_labels_are_filled_in_between_labelled_slices(partial):
    query, truth = scene(name="query")
    filled = fitted(partial, bspline=False).predict(query)
    bare = fitted(partial, bspline=False, fill=False).predict(query)
    middle = truth.copy()
    middle[..., :11] = middle[..., 20:] = 0
    assert dice(filled.labels, middle, 3) > 0.9
    assert dice(bare.labels, middle, 3) < 0.8
    assert not filled.labels[..., :9].any()  # nothing is known there


def test_unknown_slices_do_not_speak_for_background(partial):
    query, truth = scene(name="query")
    both = fitted(partial, template(), bspline=False).predict(query)
    assert dice(both.labels, truth, 3) > 0.9
    unknown = truth.copy()
    unknown[..., 10:21] = 0  # only the complete template speaks here
    assert (unknown == 3).sum() > 30
    assert ((both.labels == 3) & (unknown == 3)).sum() > 0.9 * (unknown == 3).sum()


def test_a_template_without_a_label_does_not_vote_against_it():
    whole = template()
    volume, labels = scene(name="other")
    half = Template(volume, np.where(labels == 3, labels, 0).astype(np.uint16), LABELS)
    query, truth = scene(name="query")
    found = fitted(whole, half, half, bspline=False).predict(query)
    assert dice(found.labels, truth, 7) > 0.9
    assert dice(found.labels, truth, 3) > 0.9


def test_the_similar_template_counts_more():
    """Two templates of other anatomy are outvoted by the one that resembles the query."""
    same = template()
    volume, labels = scene(
        warp=lambda x: np.stack([x[0], x[1] - 0.5 * (np.hypot(x[0] + 0.3, x[1]) < 0.55), x[2]]), name="other"
    )
    other = Template(volume, labels, LABELS, complete=True)
    query, truth = scene(name="query")
    weighted = fitted(same, other, other, bspline=False).predict(query)
    equal = fitted(same, other, other, bspline=False, gain=1e-6).predict(query)
    assert dice(weighted.labels, truth, 3) > dice(equal.labels, truth, 3) + 0.03


def test_constant_image_is_said():
    query = Volume(np.full((30, 30, 20), 5.0, np.float32), np.eye(4), modality="MR", name="flat")
    found = fitted(template()).predict(query)
    assert any("constant" in note for note in found.notes)
    assert found.labels.shape == query.shape


def test_failing_optimiser_leaves_the_stage_before(monkeypatch):
    import SimpleITK

    def fail(*_):
        raise RuntimeError("ITK ERROR: all samples map outside moving image buffer")

    monkeypatch.setattr(SimpleITK.ImageRegistrationMethod, "Execute", fail)
    volume, truth = scene(name="query")
    found = fitted(template()).predict(volume)
    assert dice(found.labels, truth, 3) > 0.95  # the start is right here
    assert any(
        "B-spline registration failed" in note and "samples map outside" in note for note in found.notes
    )
    assert all(note.startswith("template: ") for note in found.notes)


def test_bad_input_is_refused():
    with pytest.raises(FewshotError, match="no template"):
        create_baseline("registration").fit([], LABELS)
    with pytest.raises(FewshotError, match="No template shows tail"):
        create_baseline("registration").fit([template()], {"bright": 1, "tail": 2})
    with pytest.raises(FewshotError, match="grid"):
        create_baseline("registration", {"grid": 0})


def test_filling_ends_halfway_where_one_end_is_empty():
    classes = np.full((9, 20, 20), -1, np.int16)
    classes[0], classes[8] = 0, 0
    classes[0, 5:15, 5:15] = 1
    classes[8, 0:3, 0:3] = 2
    filled = fill_between(classes, (1, 1))
    areas = (filled == 1).sum((1, 2))
    assert areas[0] == 100
    assert (np.diff(areas) <= 0).all()
    assert areas[3] > 0
    assert areas[5] == 0
    assert (filled != -1).all()


def test_resizing_keeps_the_place():
    array = np.zeros((64, 48, 40), np.float32)
    array[20:30, 10:20, 8:20] = 1
    picture = Picture.centred(array, (1.0, 1.5, 2.0))
    small = picture.resized(5000)
    assert small.array.size <= 7000
    assert np.allclose(small.extent, picture.extent)
    for one, other in zip(
        *[np.array(ndimage.center_of_mass(p.array)) * p.spacing + p.origin for p in (picture, small)],
        strict=True,
    ):
        assert abs(one - other) < 0.3
