"""Which places of two crops are the same tissue, and that crops stay what they claim to be."""

import pytest
import torch

from fewshot.pretraining.views import (
    AROUND,
    SHIFT,
    TURN,
    ZOOM,
    ZOOM_BETWEEN,
    Crop,
    corresponding,
    crop_inside,
    crop_pair,
    sample_maps,
)

SIDE, PIXELS, BATCH = 64, 32, 24
CONTENTS = torch.tensor([[float(SIDE), float(SIDE)]]).expand(BATCH, 2)


def ramp(axis):
    """Images whose grey value tells the place along an axis: 0 is x (columns), 1 is y (rows)."""
    values = 0.2 + 0.8 * torch.arange(SIDE) / (SIDE - 1)
    image = values[None, :].expand(SIDE, SIDE) if axis == 0 else values[:, None].expand(SIDE, SIDE)
    return image.expand(BATCH, 1, SIDE, SIDE).contiguous()


def place_of(values):
    """The place that a grey value of `ramp` stands for."""
    return (values - 0.2) / 0.8 * (SIDE - 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(seed=0):
    """The same crops of both ramps."""
    return [
        crop_pair(ramp(axis), ramp(axis), CONTENTS, pixels=PIXELS, generator=generator(seed))
        for axis in (0, 1)
    ]


def on_slice(crop, places):
    return places @ crop.to_slice[:, :, :2].transpose(1, 2) + crop.to_slice[:, None, :, 2]


def noise(seed):
    """Smooth random images."""
    coarse = torch.rand(BATCH, 1, 16, 16, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def test_corresponding_places_show_the_same_tissue():
    (first_x, second_x), (first_y, second_y) = pairs()
    places = corresponding(first_x, second_x, 16, generator=generator(1))
    where = on_slice(first_x, places.first)
    inside = places.valid & (where > 4).all(-1) & (where < SIDE - 5).all(-1)
    assert inside.sum() > 100
    for axis, (first, second) in enumerate([(first_x, second_x), (first_y, second_y)]):
        here = place_of(sample_maps(first.images, places.first, PIXELS)[..., 0])
        there = place_of(sample_maps(second.images, places.second, PIXELS)[..., 0])
        torch.testing.assert_close(here[inside], there[inside], atol=0.05, rtol=0)
        torch.testing.assert_close(here[inside], where[..., axis][inside], atol=0.05, rtol=0)


def test_both_crops_are_turned_and_mirrored_alike():
    first, second = pairs()[0]
    signs = [torch.linalg.det(crop.to_slice[:, :, :2]).sign() for crop in (first, second)]
    assert signs[0].tolist() == signs[1].tolist()
    assert set(signs[0].tolist()) == {-1.0, 1.0}
    between = torch.linalg.solve(first.to_slice[:, :, :2], second.to_slice[:, :, :2])
    angle = torch.atan2(between[:, 1, 0], between[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 2 * TURN + 1e-3


def test_local_crops_are_mirrored_like_their_image_and_show_a_part_of_it():
    (first, _), _ = pairs()
    smaller = [crop_inside(ramp(axis), first, pixels=16, generator=generator(3)) for axis in (0, 1)]
    places = torch.stack([place_of(crop[:, 0]) for crop in smaller], -1)
    centre = places[:, 6:10, 6:10]
    right, down = centre[:, 0, 1] - centre[:, 0, 0], centre[:, 1, 0] - centre[:, 0, 0]
    handed = (right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]).sign()
    inside = ((centre > 4) & (centre < SIDE - 5)).flatten(1).all(1)
    assert inside.sum() > 8
    assert handed[inside].tolist() == torch.linalg.det(first.to_slice[:, :, :2]).sign()[inside].tolist()
    back = torch.linalg.solve(
        first.to_slice[:, :, :2], (centre[:, 1, 1] - first.to_slice[:, :, 2])[..., None]
    )
    assert back[inside].abs().max() < PIXELS / 2


def test_crops_keep_their_bounds():
    first, second = crop_pair(noise(0), noise(1), CONTENTS, pixels=PIXELS, generator=generator())
    zoom = []
    for crop in (first, second):
        assert crop.images.shape == (BATCH, 1, PIXELS, PIXELS)
        assert crop.images.min() >= 0
        assert crop.images.max() <= 1
        linear = crop.to_slice[:, :, :2]
        zoom.append(torch.linalg.det(linear).abs() ** -0.5)
        straight = (linear * zoom[-1][:, None, None]).abs()
        torch.testing.assert_close(
            straight @ straight.transpose(1, 2) * torch.eye(2), torch.eye(2).expand(BATCH, 2, 2)
        )
        angle = torch.atan2(straight.amin((1, 2)), straight.amax((1, 2))).rad2deg()
        assert angle.max() <= TURN + 1e-3
        assert zoom[-1].min() >= ZOOM[0] - 1e-4
        assert zoom[-1].max() <= ZOOM[1] + 1e-4
    ratio = zoom[0] / zoom[1]
    assert 1 / ZOOM_BETWEEN - 1e-4 <= ratio.min() < 1 < ratio.max() <= ZOOM_BETWEEN + 1e-4
    apart = (first.to_slice[:, :, 2] - second.to_slice[:, :, 2]).abs() * zoom[0][:, None]
    assert apart.max() <= SHIFT * PIXELS + 1e-3


def test_the_second_crop_shows_the_neighbour():
    dark, bright = torch.full((BATCH, 1, SIDE, SIDE), 0.25), torch.full((BATCH, 1, SIDE, SIDE), 0.75)
    first, second = crop_pair(dark, bright, CONTENTS, pixels=PIXELS, generator=generator())
    assert first.images.max().item() == pytest.approx(0.25)
    assert second.images.max().item() == pytest.approx(0.75)


def test_crops_lie_in_the_content_and_not_in_air():
    images = torch.zeros(BATCH, 1, SIDE, SIDE)
    images[:, :, 10:20, 4:40] = 1
    contents = torch.tensor([[32.0, 48.0]]).expand(BATCH, 2)
    first, _ = crop_pair(images, images, contents, pixels=PIXELS, generator=generator())
    x, y = first.to_slice[:, :, 2].unbind(1)
    assert ((x > 2) & (x < 41) & (y > 8) & (y < 21)).all()


def test_places_outside_the_other_crop_are_not_valid():
    centre = torch.tensor([SIDE / 2 - 14.0, SIDE / 2])
    matrices = [
        torch.cat([torch.eye(2), (centre + shift)[:, None]], 1)
        for shift in (torch.zeros(2), torch.tensor([28.0, 0]))
    ]
    first, second = (Crop(noise(0)[:, :, :PIXELS, :PIXELS], m.expand(BATCH, 2, 3)) for m in matrices)
    places = corresponding(first, second, 16, generator=generator())
    torch.testing.assert_close(places.second, places.first - torch.tensor([28.0, 0]))
    assert (places.second[places.valid].abs() < PIXELS / 2).all()
    assert (places.first[places.valid][:, 0] > 28 - PIXELS / 2).all()
    assert 0 < places.valid.float().mean() < 1
    torch.testing.assert_close(places.apart, torch.cdist(places.first, places.first))


def test_flat_tissue_has_no_valid_place():
    images = noise(0)[:, :, :PIXELS, :PIXELS].clone()
    images[..., : PIXELS // 2] = 0.5
    crop = Crop(images, torch.eye(2, 3).expand(BATCH, 2, 3))
    places = corresponding(crop, crop, 16, generator=generator())
    assert places.valid.any()
    inside = (places.first.abs() < PIXELS / 2 - AROUND // 2 - 1).all(-1)
    assert places.first[places.valid & inside][:, 0].min() > -(AROUND // 2 + 1)
    flat = Crop(torch.full_like(images, 0.3), crop.to_slice)
    places = corresponding(flat, flat, 16, generator=generator())
    assert not places.valid[(places.first.abs() < PIXELS / 2 - AROUND // 2 - 1).all(-1)].any()


def test_flat_tissue_at_the_border_has_no_valid_place():
    flat = Crop(torch.full((BATCH, 1, PIXELS, PIXELS), 0.3), torch.eye(2, 3).expand(BATCH, 2, 3))
    assert not corresponding(flat, flat, 16, generator=generator()).valid.any()


@pytest.mark.parametrize("other", [0, 1])
def test_the_same_seed_gives_the_same_views(other):
    first, second = (
        crop_pair(noise(0), noise(1), CONTENTS, pixels=PIXELS, generator=generator(s)) for s in (0, other)
    )
    same = all(
        torch.equal(a.images, b.images) and torch.equal(a.to_slice, b.to_slice)
        for a, b in zip(first, second, strict=True)
    )
    assert same == (other == 0)
    places = [corresponding(*first, 8, generator=generator(s)).first for s in (0, other)]
    assert torch.equal(*places) == (other == 0)
