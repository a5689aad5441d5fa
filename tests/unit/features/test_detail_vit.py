"""The embedded backbone's network: features at half a patch, for slices of any size."""

import pytest
import torch

from fewshot.features.detail_vit import BLACK
from fewshot.features.handmade import derivatives
from fewshot.features.registry import load_model


@pytest.fixture(scope="module")
def network():
    model, _ = load_model("random-tiny")
    return model.eval().requires_grad_(False)


def images(height, width, count=2, seed=0):
    """Slices with a black corner, as nearly all have."""
    drawn = torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(seed))
    drawn[:, :, 0, 0] = -4
    return drawn.clamp(min=-4)


@pytest.mark.parametrize("size", [(32, 48), (36, 44), (44, 32), (60, 100)])
def test_maps_have_a_feature_every_four_pixels(network, size):
    maps = network.maps(images(*size))
    assert maps.shape == (2, size[0] // 4, size[1] // 4, network.width)
    assert torch.isfinite(maps).all()


def test_maps_are_the_details_beside_the_patches(network):
    given = images(48, 64)
    encoded, maps = network.encode(given), network.maps(given)
    assert encoded.image.shape == (2, network.embed_dim)
    assert encoded.patches.shape == (2, 6, 8, network.embed_dim)
    assert encoded.details.shape == (2, 12, 16, network.detail)
    details, patches, local = maps.split([network.detail, network.embed_dim, 20], dim=-1)
    assert torch.equal(local, derivatives(given, 4))
    assert torch.equal(details, encoded.details)
    # four details lie around the corner of four patches, each a quarter of a patch away from it
    corner = encoded.patches[:, 2:4, 3:5].flatten(1, 2)
    weights = torch.tensor([9.0, 3.0, 3.0, 1.0]) / 16
    torch.testing.assert_close(patches[:, 5, 7], (corner * weights[:, None]).sum(1))


def test_a_slice_is_padded_with_black(network):
    given = images(36, 44)
    padded = torch.full((2, 1, 40, 48), BLACK)
    padded[:, :, :36, :44] = given
    learned = network.detail + network.embed_dim
    torch.testing.assert_close(network.maps(given)[..., :learned], network.maps(padded)[:, :9, :11, :learned])


def test_details_are_normalised_and_follow_the_image(network):
    given = images(64, 64, 1)
    details = network.encode(given).details
    torch.testing.assert_close(details.mean(-1), torch.zeros(1, 16, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(details.var(-1, unbiased=False), torch.ones(1, 16, 16), atol=1e-3, rtol=0)
    changed = given.clone()
    changed[:, :, 40:44, 20:24] += 3
    difference = (network.encode(changed).details - details).abs().sum(-1)[0]
    assert difference.argmax() in [row * 16 + col for row in (9, 10, 11) for col in (4, 5, 6)]


@pytest.mark.parametrize("size", [(32, 32), (36, 44)])
def test_a_slice_does_not_depend_on_its_batch_mates(network, size):
    given = images(*size, count=3)
    alone = torch.cat([network.maps(image[None]) for image in given])
    torch.testing.assert_close(network.maps(given), alone, atol=1e-4, rtol=1e-4)


def test_a_slice_does_not_depend_on_a_darker_batch_mate(network):
    given = images(36, 44)
    given[1] += 2
    alone = torch.cat([network.maps(image[None]) for image in given])
    torch.testing.assert_close(network.maps(given), alone, atol=1e-4, rtol=1e-4)


def test_hidden_tokens_are_replaced_before_the_transformer(network):
    given, seen = images(32, 32), []

    def hide(tokens):
        seen.append(tokens.shape)
        return torch.zeros_like(tokens)

    hidden, other = network.encode(given, hide=hide), network.encode(images(32, 32, seed=1), hide=hide)
    assert seen == [(2, 4, 4, network.embed_dim)] * 2
    assert torch.equal(hidden.patches, other.patches)
    assert not torch.equal(hidden.details, other.details)


def test_details_can_be_left_to_the_patches(network):
    given, keep = images(32, 32), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    encoded, some = network.encode(given), network.encode(given, keep=keep)
    assert torch.equal(some.patches, encoded.patches)
    torch.testing.assert_close(some.details[1], encoded.details[1])
    assert not torch.allclose(some.details[0], encoded.details[0], atol=0.01)
