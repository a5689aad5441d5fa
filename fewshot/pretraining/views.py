"""Crops of slices for self-supervised training, and which places of two crops are the same tissue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ZOOM = (0.5, 1.8)
"""Crop pixels per slice pixel: from whole slices to single organs."""
ZOOM_BETWEEN = 1.5
"""Largest ratio of the zooms of two crops of one image."""
LOCAL_ZOOM = (1.0, 2.0)
"""Zoom of a local crop, in terms of the first crop's."""
TURN = 20.0
"""Largest rotation of a crop against the slice, degrees."""
SHIFT = 0.25
"""Largest distance of the second crop's centre from the first's, in sides of the first."""
TRIES = 16
"""Places drawn before an image's centre is taken as it comes; a centre in air would waste the crop."""
SEEN = 0.05
FLAT = 0.01
"""Deviation of the grey values around a place below which it looks like any other."""
AROUND = 9
"""Side of that surrounding, crop pixels."""
CANDIDATES = 4
"""Places drawn for every one that is wanted: some lie outside the other crop or in flat tissue."""


@dataclass(frozen=True)
class Crop:
    """Crops of a batch of slices.

    Attributes:
        images: ``[B, 1, P, P]`` in [0, 1].
        to_slice: ``[B, 2, 3]``, crop pixels (x, y, 1) from the crop's centre -> slice pixels (x, y).
    """

    images: Tensor
    to_slice: Tensor


@dataclass(frozen=True)
class Places:
    """Corresponding places of two crops.

    Attributes:
        first, second: ``[B, N, 2]`` (x, y) in crop pixels from the centre.
        apart: ``[B, N, N]`` distances in pixels of the first crop.
        valid: bool ``[B, N]``.
    """

    first: Tensor
    second: Tensor
    apart: Tensor
    valid: Tensor


def crop_pair(
    first: Tensor, second: Tensor, contents: Tensor, *, pixels: int, generator: torch.Generator
) -> tuple[Crop, Crop]:
    """Two overlapping crops of each image, turned and mirrored alike so that left stays left.

    Args:
        first: ``[B, 1, S, S]`` slices in [0, 1].
        second: likewise, the same slices or neighbours of them.
        contents: ``[B, 2]`` rows and columns of each slice inside its square.
        pixels: side of the crops.
    """
    batch = len(first)
    symmetry = _symmetries(batch, generator)
    centre = _centres(first, contents, generator)
    zoom = _between(ZOOM, batch, generator)
    crop = _crop(first, centre, zoom, symmetry, pixels, generator)
    offset = (_random((batch, 2), generator) * 2 - 1) * SHIFT * pixels / zoom[:, None]
    between = _between((1 / ZOOM_BETWEEN, ZOOM_BETWEEN), batch, generator)
    other = _crop(second, centre + offset, (zoom * between).clamp(*ZOOM), symmetry, pixels, generator)
    return crop, other


def crop_inside(images: Tensor, crop: Crop, *, pixels: int, generator: torch.Generator) -> Tensor:
    """Small crops ``[B, 1, pixels, pixels]`` within given ones, for DINO's local views."""
    batch, side = len(images), crop.images.shape[-1]
    matrix = crop.to_slice
    place = (_random((batch, 2), generator) - 0.5) * 0.7 * side
    centre = _apply(matrix, place[:, None])[:, 0]
    linear = matrix[:, :, :2] / _between(LOCAL_ZOOM, batch, generator)[:, None, None]
    scale = torch.linalg.det(linear).abs().sqrt()
    smaller = torch.cat([linear @ _rotations(batch, generator), centre[:, :, None]], 2)
    return _sample(images, smaller, pixels, scale)


def corresponding(first: Crop, second: Crop, count: int, *, generator: torch.Generator) -> Places:
    """Random places of the first crop that the second shows too, with something to recognise around them."""
    batch, side = len(first.images), first.images.shape[-1]
    drawn = (_random((batch, CANDIDATES * count, 2), generator) - 0.5) * (side - 2)
    on_slice = _apply(first.to_slice, drawn)
    back = _inverse(second.to_slice)
    elsewhere = _apply(back, on_slice)
    limit = second.images.shape[-1] / 2 - 1
    valid = (elsewhere.abs() < limit).all(-1) & (_contrast(first.images, drawn) > FLAT)
    order = (valid.float() + _random(valid.shape, generator) * 0.5).topk(count, dim=1).indices
    take = order[..., None].expand(-1, -1, 2)
    here, there = drawn.gather(1, take), elsewhere.gather(1, take)
    return Places(here, there, torch.cdist(here, here), valid.gather(1, order))


def _contrast(images: Tensor, places: Tensor) -> Tensor:
    """Deviation of the grey values around places, ``[B, N]``."""
    mean, square = (
        functional.avg_pool2d(x, AROUND, 1, AROUND // 2, count_include_pad=False) for x in (images, images**2)
    )
    deviation = (square - mean**2).clamp(min=0).sqrt()
    return sample_maps(deviation, places, images.shape[-1])[..., 0]


def sample_maps(maps: Tensor, places: Tensor, side: int) -> Tensor:
    """Maps ``[B, C, h, w]`` of crops at places ``[B, N, 2]`` (crop pixels from the centre): ``[B, N, C]``."""
    grid = (places / (side / 2))[:, :, None]
    sampled = functional.grid_sample(maps, grid.to(maps.dtype), align_corners=False, padding_mode="border")
    return sampled[..., 0].transpose(1, 2)


def _crop(
    images: Tensor, centre: Tensor, zoom: Tensor, symmetry: Tensor, pixels: int, generator: torch.Generator
) -> Crop:
    linear = (symmetry @ _rotations(len(images), generator)) / zoom[:, None, None]
    matrix = torch.cat([linear, centre[:, :, None]], 2)
    return Crop(_sample(images, matrix, pixels, 1 / zoom), matrix)


def _sample(images: Tensor, matrix: Tensor, pixels: int, scale: Tensor) -> Tensor:
    """Crops by an affine map; slices that get smaller are averaged first, against aliasing."""
    side = images.shape[-1]
    axis = torch.arange(pixels, device=images.device) - (pixels - 1) / 2
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
    grid = (_apply(matrix, places.expand(len(images), -1, -1)) + 0.5) / side * 2 - 1
    grid = grid.unflatten(1, (pixels, pixels))
    sharp = functional.grid_sample(images, grid, align_corners=False)
    smooth = functional.grid_sample(functional.avg_pool2d(images, 2), grid, align_corners=False)
    return torch.where((scale > 1.4)[:, None, None, None], smooth, sharp)


def _centres(images: Tensor, contents: Tensor, generator: torch.Generator) -> Tensor:
    """A random place (x, y) of each slice, not in air where that can be helped."""
    batch, side = len(images), images.shape[-1]
    drawn = _random((batch, TRIES, 2), generator) * contents.flip(1)[:, None]
    grid = ((drawn + 0.5) / side * 2 - 1)[:, :, None]
    values = functional.grid_sample(images, grid, align_corners=False)[:, 0, :, 0]
    best = (values > SEEN).float().argmax(1)
    return drawn[torch.arange(batch, device=images.device), best]


def _symmetries(batch: int, generator: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square for each image, ``[B, 2, 2]``."""
    turn = torch.randint(4, (batch,), generator=generator, device=generator.device) * (torch.pi / 2)
    mirror = torch.randint(2, (batch,), generator=generator, device=generator.device) * 2.0 - 1
    matrix = _rotation(turn)
    return torch.stack([matrix[:, 0] * mirror[:, None], matrix[:, 1]], 1)


def _rotations(batch: int, generator: torch.Generator) -> Tensor:
    return _rotation((_random((batch,), generator) * 2 - 1) * (TURN * torch.pi / 180))


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _apply(matrix: Tensor, places: Tensor) -> Tensor:
    """Places ``[B, N, 2]`` through ``[B, 2, 3]``."""
    return places @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]


def _inverse(matrix: Tensor) -> Tensor:
    linear = torch.linalg.inv(matrix[:, :, :2])
    return torch.cat([linear, -linear @ matrix[:, :, 2:]], 2)


def _between(limits: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Random factors, evenly spread on a logarithmic scale."""
    low, high = (torch.tensor(limit).log().item() for limit in limits)
    return (low + (high - low) * _random((count,), generator)).exp()


def _random(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
