"""UniverSeg: the network is the published one, its files are read strictly, volumes go through it and come back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate, leaky_relu, max_pool2d

from fewshot.baselines import create_baseline
from fewshot.baselines.universeg.baseline import probabilities_of
from fewshot.baselines.universeg.network import CrossBlock, UniverSegNetwork, Widths, initialise
from fewshot.baselines.universeg.support import (
    centred,
    collect_support,
    square_spec,
    square_stack,
    support_counts,
)
from fewshot.baselines.universeg.weights import VARIABLE, load_network
from fewshot.errors import FewshotError
from fewshot.support import Template
from fewshot.volumes import Volume
from tests.unit.conftest import blobs

TINY = Widths(encoder=((3, 4), (5, 6), (4, 5)), decoder=((6, 3), (4, 7)))
NAMES = {"bright": 1, "dark": 2}


@pytest.fixture(autouse=True)
def no_weights_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def network():
    network = UniverSegNetwork(TINY)
    initialise(network, 1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return network.eval()


def task(count=5, size=16, targets=2):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(targets, 1, size, size, generator=generator)
    images = torch.rand(count, 1, size, size, generator=generator)
    labels = (torch.rand(count, 1, size, size, generator=generator) > 0.6).float()
    return target, images, labels


def naive_block(block: CrossBlock, target, support):
    """The definition (paper, section 3): every pair of target and support image is joined and convolved."""
    pairs = torch.stack([block.cross.cross_conv(torch.cat([target, each])[None])[0] for each in support])
    new_target = leaky_relu(block.target.vmapped.conv(pairs.mean(0, keepdim=True)))[0]
    return new_target, leaky_relu(block.support.vmapped.conv(pairs))


def naive_network(network, target, images, labels):
    """The published order of steps, for one target."""

    def up(x):
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    support, skips = torch.cat([images, labels], 1), []
    for index, block in enumerate(network.enc_blocks):
        target, support = naive_block(block, target, support)
        if index < len(network.enc_blocks) - 1:
            skips.append((target, support))
            target, support = max_pool2d(target[None], 2)[0], max_pool2d(support, 2)
    for block in network.dec_blocks:
        skip, skip_support = skips.pop()
        target = torch.cat([up(target[None])[0], skip])
        support = torch.cat([up(support), skip_support], 1)
        target, support = naive_block(block, target, support)
    return network.out_conv.conv(target[None])[0]


# The network


def test_it_has_the_published_parameters():
    """The paper gives 1.18 million; names and shapes are those of universeg_v1_nf64_ss64_STA.pt."""
    shapes = {name: tuple(value.shape) for name, value in UniverSegNetwork().state_dict().items()}
    assert sum(np.prod(shape) for shape in shapes.values()) == 1_182_785
    assert len(shapes) == 44
    assert shapes["enc_blocks.0.cross.cross_conv.weight"] == (64, 3, 3, 3)
    assert shapes["enc_blocks.3.cross.cross_conv.weight"] == (64, 128, 3, 3)
    assert shapes["enc_blocks.2.support.vmapped.conv.bias"] == (64,)
    assert shapes["dec_blocks.2.cross.cross_conv.weight"] == (64, 256, 3, 3)
    assert shapes["dec_blocks.2.target.vmapped.conv.weight"] == (64, 64, 3, 3)
    assert shapes["out_conv.conv.weight"] == (1, 64, 1, 1)


@torch.inference_mode()
def test_a_cross_block_convolves_every_pair(network):
    block = network.enc_blocks[1]
    target, support = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 4, 8, 8)
    new_target, new_support = block(target, support)
    for index in range(2):
        expected_target, expected_support = naive_block(block, target[index], support[index])
        torch.testing.assert_close(new_target[index], expected_target, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(new_support[index], expected_support, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 5, 11])
@torch.inference_mode()
def test_the_short_way_gives_what_all_pairs_give(network, count):
    target, images, labels = task(count)
    found = network.segment(target, network.prepare(images, labels))
    expected = torch.stack([naive_network(network, each, images, labels) for each in target])
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_every_target_may_have_its_own_support_set(network):
    target, images, labels = task(6)
    found = network(target, images.reshape(2, 3, 1, 16, 16), labels.reshape(2, 3, 1, 16, 16))
    expected = torch.stack(
        [
            naive_network(network, target[i], images[3 * i : 3 * i + 3], labels[3 * i : 3 * i + 3])
            for i in (0, 1)
        ]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_order_of_the_support_set_does_not_matter_but_its_labels_do(network):
    target, images, labels = task(9)
    order = torch.randperm(9)
    plain = network.segment(target, network.prepare(images, labels))
    torch.testing.assert_close(
        network.segment(target, network.prepare(images[order], labels[order])), plain, atol=1e-5, rtol=1e-4
    )
    other = network.segment(target, network.prepare(images[order], labels))
    assert (other - plain).abs().max() > 1e-3


def test_it_can_learn_which_square_the_support_set_means():
    """Bright or dark squares are the label, as the support set shows: nothing but the context tells."""
    network = UniverSegNetwork(Widths(encoder=((16, 16),) * 2, decoder=((16, 16),)))
    initialise(network, 0)
    generator = np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)

    def predict(bright):
        images, masks = squares(generator, 8, bright=bright)
        return network.segment(images[:4], network.prepare(images[4:], masks[4:])), masks[:4]

    losses = []
    for step in range(160):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(*predict(bright=step % 2 == 0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:10]), losses
    for bright in (True, False):
        with torch.inference_mode():
            logits, masks = predict(bright)
        found, truth = logits > 0, masks > 0
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.5


def squares(generator, count, *, bright, size=16):
    images = np.full((count, 1, size, size), 0.5, np.float32)
    masks = np.zeros_like(images)
    for image, mask in zip(images, masks, strict=True):
        for top, value in zip(generator.permutation([1, 9]), (1.0, 0.0), strict=True):
            left = generator.integers(1, 10)
            place = np.s_[0, top : top + 5, left : left + 5]
            image[place] = value
            mask[place] = value == bright
    return torch.from_numpy(images), torch.from_numpy(masks)


# Its files


@pytest.mark.parametrize("kind", ["pt", "wrapped", "safetensors"])
@torch.inference_mode()
def test_a_file_is_read_with_the_widths_that_it_has(network, tmp_path, kind):
    path = tmp_path / f"small.{kind}"
    if kind == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"model": network.state_dict()} if kind == "wrapped" else network.state_dict(), path)
    again = load_network(path)
    assert again.widths == TINY
    target, images, labels = task()
    torch.testing.assert_close(
        again.segment(target, again.prepare(images, labels)),
        network.segment(target, network.prepare(images, labels)),
    )


def spoilt(state, change):
    match change:
        case "missing":
            del state["dec_blocks.1.support.vmapped.conv.bias"]
        case "part":
            del state["enc_blocks.1.target.vmapped.conv.weight"]
        case "unknown":
            state["head.weight"] = torch.zeros(2, 2)
        case "shape":
            state["out_conv.conv.weight"] = torch.zeros(1, 3, 1, 1)
        case "block":
            state = {name: value for name, value in state.items() if not name.startswith("dec_blocks.1")}
        case "gap":
            state = {name.replace("enc_blocks.2", "enc_blocks.3"): value for name, value in state.items()}
        case "nan":
            state["out_conv.conv.bias"] = torch.full((1,), torch.nan)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "dec_blocks.1.support.vmapped.conv.bias is missing"),
        ("part", "enc_blocks.1 is not complete"),
        ("unknown", "it holds head.weight"),
        ("shape", r"out_conv.conv.weight has the shape \(1, 3, 1, 1\) instead of \(1, 7, 1, 1\)"),
        ("block", "it has 3 enc_blocks and 1 dec_blocks"),
        ("gap", "the numbers of its enc_blocks have a gap"),
        ("nan", "some of its numbers are not finite"),
    ],
)
def test_another_network_is_refused_with_what_is_different(network, tmp_path, change, words):
    path = tmp_path / "other.pt"
    torch.save(spoilt(dict(network.state_dict()), change), path)
    with pytest.raises(FewshotError, match=rf"other.pt is not a UniverSeg network \({words}"):
        create_baseline("universeg", {"weights": str(path)})


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "page.pt"
    path.write_text("<!doctype html><p>Sign in")
    with pytest.raises(FewshotError, match="^UniverSeg file .*page.pt is a web page"):
        create_baseline("universeg", {"weights": str(path)})


def test_without_weights_it_says_what_to_download_and_where_to_name_it(tmp_path, monkeypatch):
    with pytest.raises(
        FewshotError, match=r"universeg_v1_nf64_ss64_STA.pt.*universeg.weights=PATH.*FEWSHOT_UNIVERSEG"
    ):
        create_baseline("universeg")
    with pytest.raises(FewshotError, match=r"gone.pt, named by option weights .* does not exist"):
        create_baseline("universeg", {"weights": str(tmp_path / "gone.pt"), "random": True})
    monkeypatch.setenv(VARIABLE, str(tmp_path / "lost.pt"))
    with pytest.raises(FewshotError, match=rf"lost.pt, named by the environment variable {VARIABLE}"):
        create_baseline("universeg", {"random": True})


def test_random_weights_are_said_to_be_random():
    baseline = create_baseline("universeg", {"random": True}, device="cpu")
    assert baseline.note == "random weights: only its speed means something"
    assert baseline.provenance() == {"weights": "random"}


# The support set


def template(labels, *, complete=False, array=None):
    volume, _ = blobs(0)
    volume = volume if array is None else replace(volume, array=array)
    return Template(volume, labels, NAMES, complete)


def test_the_support_set_has_the_slices_with_the_label_and_some_without():
    _, labels = blobs(0)
    spec = square_spec([blobs(0)[0]])
    shown = int((labels == 2).any((0, 1)).sum())
    support = collect_support([template(labels, complete=True)], "dark", spec, limit=64, without=0.25, seed=0)
    with_label = support.masks.any((1, 2)).sum()
    assert with_label == shown
    assert len(support.images) - with_label == round(shown / 3)
    assert support.images.shape[1:] == support.masks.shape[1:] == (128, 128)
    assert support.images.min() >= 0
    assert support.images.max() <= 1
    assert support.images[support.masks].mean() < 0.3, "the dark ball is dark where its mask says it is"


def test_slices_that_nobody_labelled_are_not_taken_for_background():
    _, labels = blobs(0)
    spec = square_spec([blobs(0)[0]])
    few = labels.copy()
    few[:, :, [0, 1, 2, 4, 5, 6, 7]] = 0
    support = collect_support([template(few)], "dark", spec, limit=64, without=0.5, seed=0)
    assert len(support.images) == 1


def test_a_template_without_the_label_gives_no_slices_of_background():
    """Where it was never drawn it may be anywhere."""
    _, labels = blobs(0)
    only_bright = np.where(labels == 1, 1, 0).astype(np.uint16)
    spec = square_spec([blobs(0)[0]])
    one = collect_support([template(labels)], "dark", spec, limit=64, without=0.5, seed=0)
    both = collect_support(
        [template(labels), template(only_bright)], "dark", spec, limit=64, without=0.5, seed=0
    )
    np.testing.assert_array_equal(one.images, both.images)


def test_the_limit_holds_and_the_seed_decides_which_slices():
    _, labels = blobs(0)
    spec = square_spec([blobs(0)[0]])
    drawn = [
        collect_support(
            [template(labels, complete=True)], "bright", spec, limit=3, without=0.3, seed=seed
        ).images
        for seed in (0, 0, 1, 2, 3)
    ]
    assert all(len(images) == 3 for images in drawn)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert any((drawn[0] != other).any() for other in drawn[2:])


def test_a_label_only_on_air_is_named():
    volume, labels = blobs(0)
    array = volume.array.copy()
    array[:, :, 3] = array.min()
    few = np.zeros_like(labels)
    few[:, :, 3] = labels[:, :, 3]
    with pytest.raises(FewshotError, match="No template slice with image content shows dark"):
        collect_support(
            [template(few, array=array)], "dark", square_spec([volume]), limit=8, without=0.2, seed=0
        )


@pytest.mark.parametrize(
    ("shown", "others", "limit", "without", "expected"),
    [
        (100, 100, 64, 0.25, (48, 16)),
        (100, 5, 64, 0.25, (59, 5)),
        (6, 100, 64, 0.25, (6, 2)),
        (6, 100, 1, 0.9, (1, 0)),
        (9, 9, 64, 0.0, (9, 0)),
    ],
)
def test_how_many_slices_are_taken(shown, others, limit, without, expected):
    assert support_counts(shown, others, limit=limit, without=without) == expected


def test_images_lie_in_the_middle_of_the_square_and_go_back():
    volume, _ = blobs(0)
    stack = square_stack(volume, square_spec([volume]))
    middle = centred(stack.images, stack)
    empty = [int((middle.any(0).any(1 - axis) == 0).sum()) for axis in (0, 1)]
    assert sorted(empty)[0] == 0
    rows_used = np.flatnonzero(middle.any((0, 2)))
    cols_used = np.flatnonzero(middle.any((0, 1)))
    for used in (rows_used, cols_used):
        assert abs(used[0] - (127 - used[-1])) <= 1
    np.testing.assert_array_equal(centred(middle, stack, back=True), stack.images)


# The whole road


@pytest.fixture
def small_file(network, tmp_path):
    path = tmp_path / "small.pt"
    torch.save(network.state_dict(), path)
    return str(path)


def test_a_volume_comes_back_on_its_own_grid(small_file):
    _, labels = blobs(0)
    baseline = create_baseline("universeg", {"weights": small_file, "support": 4}, device="cpu")
    assert baseline.fit([template(labels)], {"bright": 5, "dark": 300}) == {}
    assert baseline.note is None
    query, _ = blobs(1, shape=(30, 44, 5))
    calls = []
    found = baseline.predict(query, progress=lambda *told: calls.append(told))
    assert found.labels.shape == (30, 44, 5)
    assert found.labels.dtype == np.uint16
    assert set(np.unique(found.labels)) <= {0, 5, 300}
    assert found.probabilities.shape == (3, 30, 44, 5)
    np.testing.assert_allclose(found.probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    values = np.array([0, 5, 300])
    assert (values[found.probabilities.argmax(0)] == found.labels).mean() > 0.99
    assert calls[-1] == ("predict", 10, 10)
    assert found.provenance["weights"] == baseline.provenance()["weights"]
    assert found.timings["total"] == pytest.approx(sum(v for k, v in found.timings.items() if k != "total"))


def test_what_the_network_sees_and_where_its_answer_goes(small_file, monkeypatch):
    """With a network that answers "where the target is bright", the bright ball is found at its place."""
    baseline = create_baseline("universeg", {"weights": small_file}, device="cpu")
    _, labels = blobs(0)
    baseline.fit([template(labels)], {"bright": 1})
    monkeypatch.setattr(baseline._network, "segment", lambda target, prepared: 40 * (target - 0.75))
    for shape in ((40, 36, 8), (36, 60, 6)):
        query, truth = blobs(1, shape=shape)
        found = baseline.predict(query).labels
        assert 2 * ((found == 1) & (truth == 1)).sum() / ((found == 1).sum() + (truth == 1).sum()) > 0.9


def test_same_seed_same_prediction(small_file):
    _, labels = blobs(0)
    query, _ = blobs(1)
    predictions = []
    for _ in range(2):
        baseline = create_baseline("universeg", {"weights": small_file, "support": 3}, device="cpu")
        baseline.fit([template(labels)], NAMES, seed=4)
        predictions.append(baseline.predict(query).probabilities)
    np.testing.assert_array_equal(*predictions)


def test_air_is_background(small_file):
    baseline = create_baseline("universeg", {"weights": small_file}, device="cpu")
    baseline.fit([template(blobs(0)[1])], NAMES)
    flat = Volume(np.full((16, 12, 4), 7, np.float32), np.eye(4), "MR", "flat", None, True, ())
    found = baseline.predict(flat)
    assert not found.labels.any()
    assert (found.probabilities[0] == 1).all()
    assert any("all air" in note for note in found.notes)


def test_wrong_requests_are_refused(small_file):
    baseline = create_baseline("universeg", {"weights": small_file}, device="cpu")
    with pytest.raises(FewshotError, match="fit it first"):
        baseline.predict(blobs(0)[0])
    with pytest.raises(FewshotError, match="no template"):
        baseline.fit([], {"bright": 1})
    with pytest.raises(FewshotError, match="No template shows liver"):
        baseline.fit([template(blobs(0)[1])], {"liver": 1})
    with pytest.raises(FewshotError, match="Option support of baseline universeg is 0"):
        create_baseline("universeg", {"support": 0})


def test_one_label_has_the_probability_of_the_published_sigmoid():
    logits = torch.randn(1, 6)
    torch.testing.assert_close(probabilities_of(logits)[1], logits[0].sigmoid())
