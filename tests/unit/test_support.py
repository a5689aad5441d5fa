"""What the templates say: partial labels, missing labels, positions of pixels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from fewshot.errors import FewshotError
from fewshot.pipeline import resolve
from fewshot.support import NEAR_SHARE, Template, collect_samples, label_names, parts_per_label
from fewshot.volumes import SliceSpec, Volume
from tests.unit.conftest import blobs

NAMES = {"bright": 1, "dark": 2}


@pytest.fixture
def collect(tiny, bank):
    def collect(templates, labels, **options):
        spec = resolve(SliceSpec(), [template.volume for template in templates], tiny)
        return collect_samples(templates, labels, spec=spec, backbone=tiny, bank=bank, **options)

    return collect


def partly(labels, keep):
    kept = np.zeros_like(labels)
    kept[:, :, keep] = labels[:, :, keep]
    return kept


def test_unlabelled_slices_are_unknown_unless_the_volume_is_complete(collect):
    volume, labels = blobs(0)
    some = partly(labels, [3, 4])
    partial = collect([Template(volume, some, NAMES)], ["bright", "dark"])
    assert set(partial.slices.tolist()) == {3, 4}
    complete = collect([Template(volume, some, NAMES, complete=True)], ["bright", "dark"])
    assert set(complete.slices[complete.targets == 0].tolist()) == set(range(8))


def test_labels_are_read_by_name_not_by_number(collect):
    volume, labels = blobs(0)
    swapped = np.choose(labels, [0, 7, 3]).astype(np.uint16)
    plain = collect([Template(volume, labels, NAMES)], ["bright", "dark"])
    renumbered = collect([Template(volume, swapped, {"dark": 3, "bright": 7})], ["bright", "dark"])
    torch.testing.assert_close(plain.features, renumbered.features)
    torch.testing.assert_close(plain.targets, renumbered.targets)


def test_a_background_pixel_may_be_a_label_that_was_not_drawn(collect):
    first, labels = blobs(0)
    second, _ = blobs(1)
    only_bright = np.where(labels == 1, labels, 0)
    samples = collect(
        [Template(first, only_bright, NAMES), Template(second, np.where(labels == 2, 2, 0), {"dark": 2})],
        ["bright", "dark"],
    )
    from_first = (samples.targets == 0) & (samples.slices < 8)
    assert samples.possible[from_first].unique(dim=0).tolist() == [[True, False, True]]
    assert samples.possible[(samples.targets == 0) & (samples.slices >= 8)].unique(dim=0).tolist() == [
        [True, True, False]
    ]
    assert samples.possible[samples.targets == 1].unique(dim=0).tolist() == [[False, True, False]]


def test_pixels_of_a_label_that_is_not_wanted_are_left_out(collect):
    volume, labels = blobs(0)
    samples = collect([Template(volume, labels, NAMES)], ["dark"])
    assert samples.labels == 1
    everything = collect([Template(volume, labels, NAMES)], ["bright", "dark"])
    background = everything.features[everything.targets == 0].double().mean(0)
    torch.testing.assert_close(
        samples.features[samples.targets == 0].double().mean(0), background, atol=0.1, rtol=0.1
    )


def test_features_belong_to_their_pixels(collect, tiny, bank):
    """A feature drawn for a pixel is the interpolated patch feature at that place."""
    from fewshot.adapters.pixels import to_pixels
    from fewshot.volumes import SliceStack

    volume, labels = blobs(0)
    samples = collect([Template(volume, labels, NAMES)], ["bright", "dark"])
    stack = SliceStack(volume, resolve(SliceSpec(), [volume], tiny), patch=tiny.patch)
    entry = bank.features(stack, tiny)
    ys, xs = (torch.as_tensor(axis) for axis in stack.patch_coordinates())
    maps = torch.from_numpy(np.asarray(entry.features[entry.rows[4]], np.float32))
    dense = to_pixels(maps[None], ys, xs)[0][torch.from_numpy(stack.slices(labels)[4] == 1)]
    drawn = samples.features[(samples.targets == 1) & (samples.slices == 4)]
    torch.testing.assert_close(drawn, dense, atol=1e-4, rtol=1e-3)


def test_draws_are_limited_and_repeatable(collect, monkeypatch):
    monkeypatch.setattr("fewshot.support.PIXELS_PER_LABEL", 50)
    volume, labels = blobs(0)
    one = collect([Template(volume, labels, NAMES)], ["bright", "dark"], seed=1)
    counts = torch.bincount(one.targets).tolist()
    assert counts[0] <= 101
    assert max(counts[1:]) <= 51
    again = collect([Template(volume, labels, NAMES)], ["bright", "dark"], seed=1)
    torch.testing.assert_close(one.features, again.features)


def test_background_is_drawn_from_the_labelled_slices_in_full_number(collect, monkeypatch):
    """However few slices are labelled, background is not short, and weights say what each pixel stands for."""
    monkeypatch.setattr("fewshot.support.PIXELS_PER_LABEL", 200)
    volume, labels = blobs(0)
    samples = collect([Template(volume, partly(labels, [4]), NAMES)], ["bright", "dark"])
    background = samples.targets == 0
    assert 390 <= background.sum() <= 410
    assert samples.weights[background].sum() == pytest.approx((labels[:, :, 4] == 0).sum(), rel=0.02)


def test_a_labelled_slice_of_air_teaches_nothing(collect):
    volume, labels = blobs(0)
    volume.array[:, :, 2:] = volume.array.min()
    samples = collect([Template(volume, labels, {"bright": 1, "dark": 2})], ["bright"])
    assert samples.slices.max() < 2
    volume.array[:] = 0
    with pytest.raises(FewshotError, match="anything but air"):
        collect([Template(volume, labels, NAMES)], ["bright"])


def test_names_come_in_order_of_appearance():
    volume, labels = blobs(0)
    templates = [
        Template(volume, np.where(labels == 2, 2, 0), NAMES),
        Template(volume, labels, {"dark": 2, "bright": 1}),
    ]
    assert label_names(templates) == ["dark", "bright"]


@pytest.mark.parametrize("complete", [True, False])
def test_parts_are_counted_in_the_templates(complete):
    volume, labels = blobs(0)
    labels = np.where(labels > 0, 1, 0).astype(np.uint16)  # two balls, one label
    parts = parts_per_label(
        [Template(volume, labels, {"balls": 1}, complete)], ["balls"], SliceSpec(size=64), 8
    )
    assert parts == [2]


def test_bad_templates_are_refused_in_words(collect):
    volume, labels = blobs(0)
    with pytest.raises(FewshotError, match="blobs_0 is empty"):
        Template(volume, np.zeros_like(labels), NAMES)
    with pytest.raises(FewshotError, match="value 2, which has no name"):
        Template(volume, labels, {"bright": 1})
    with pytest.raises(FewshotError, match=r"\(40, 36, 7\) voxels"):
        Template(volume, labels[:, :, 1:], NAMES)
    with pytest.raises(FewshotError, match="no background pixel"):
        collect([Template(volume, np.ones_like(labels), {"all": 1})], ["all"])


def one_ball(radius=4):
    """A small ball in the middle of a wide volume, and the distance of every pixel from it, mm."""
    volume, _ = blobs(0, shape=(64, 64, 5))
    x, y, z = np.indices((64, 64, 5))
    labels = ((x - 32) ** 2 + (y - 32) ** 2 + 9 * (z - 2) ** 2 <= radius**2).astype(np.uint16)
    return volume, labels, distance_transform_edt(labels == 0, sampling=volume.spacing)


def test_hard_background_comes_mostly_from_around_the_labels(collect, monkeypatch):
    monkeypatch.setattr("fewshot.support.PIXELS_PER_LABEL", 300)
    volume, labels, distance = one_ball()
    templates = [Template(volume, labels, {"ball": 1}, complete=True)]
    plain, hard = collect(templates, ["ball"]), collect(templates, ["ball"], hard=True)
    radius = np.cbrt((labels > 0).sum() * np.prod(volume.spacing) * 3 / 4 / np.pi)
    near = (distance > 0) & (distance <= max(3 * radius, 8))
    assert 0.1 < near.sum() / (labels == 0).sum() < 0.5
    background = hard.targets == 0
    assert background.sum() == pytest.approx(600, abs=5)
    # near pixels were drawn more densely: each stands for fewer
    weights = hard.weights[background].unique()
    assert len(weights) == 2
    share = (hard.weights[background] == weights.min()).float().mean()
    assert float(share) == pytest.approx(NEAR_SHARE, abs=0.02)
    for of in (plain, hard):
        assert of.weights[of.targets == 0].sum() == pytest.approx((labels == 0).sum(), rel=0.02)
    near_weight = hard.weights[background & (hard.weights == weights.min())].sum()
    assert float(near_weight) == pytest.approx(near.sum(), rel=0.02)


def test_hard_background_leaves_the_labels_as_they_are(collect):
    volume, labels = blobs(0)
    templates = [Template(volume, partly(labels, [2, 3, 4]), NAMES)]
    plain, hard = collect(templates, ["bright", "dark"]), collect(templates, ["bright", "dark"], hard=True)
    for label in (1, 2):
        one, other = plain.targets == label, hard.targets == label
        torch.testing.assert_close(plain.features[one], hard.features[other])
        torch.testing.assert_close(plain.weights[one], hard.weights[other])
    assert set(hard.targets.tolist()) == {0, 1, 2}
    assert set(hard.slices.tolist()) == {2, 3, 4}, "near a label on an unlabelled slice nothing is known"
    assert hard.possible[hard.targets == 0].unique(dim=0).tolist() == [[True, False, False]]


def test_hard_background_of_pictures_and_of_labels_without_surroundings(collect):
    volume, labels, _ = one_ball()
    flat = Volume(volume.array[:, :, 2:3], np.diag([2.0, 2.0, 1.0, 1.0]), "XR", "picture", None, False, ())
    samples = collect([Template(flat, labels[:, :, 2:3], {"ball": 1})], ["ball"], hard=True)
    assert samples.weights.sum() == pytest.approx(64 * 64, rel=0.02)
    with pytest.raises(FewshotError, match="no background pixel"):
        collect([Template(flat, np.ones_like(labels[:, :, 2:3]), {"all": 1})], ["all"], hard=True)
    unwanted = Template(flat, labels[:, :, 2:3], {"other": 1}, complete=True)
    wanted = Template(flat, 2 * labels[:, :, 2:3], {"ball": 2})
    both = collect([unwanted, wanted], ["ball"], hard=True)
    assert set(both.slices[both.targets == 1].tolist()) == {1}
    assert not ((both.slices == 0) & ~both.possible.all(1)).any(), "the ball may lie there unseen"


def test_hard_draws_are_repeatable(collect, monkeypatch):
    monkeypatch.setattr("fewshot.support.PIXELS_PER_LABEL", 100)
    templates = [Template(*blobs(0), NAMES)]
    one, again, other = (collect(templates, ["bright", "dark"], hard=True, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one.features, again.features)
    assert not torch.equal(one.features, other.features)
