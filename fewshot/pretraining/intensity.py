"""Changes of grey values that scanners and protocols make: what the features should not depend on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fewshot.volumes.windows import WINDOWS

SOFT = 0.6
"""Share of CT crops in the soft-tissue window, which inference uses by itself; others have a random one."""
CENTRES, WIDTHS = (-700.0, 500.0), (250.0, 2000.0)
"""Random CT windows, Hounsfield units."""
GAIN, OFFSET, GAMMA, CURVE = 0.25, 0.1, 0.5, 0.12
BIAS_CELLS, BIAS, BIASED = 4, 0.35, 0.5
NOISE, NOISY = 0.06, 0.5
COARSE = 0.3
INVERTED = 0.1


def ct_windows(count: int, generator: torch.Generator) -> Tensor:
    """A CT window for each image, ``[B, 2]`` lower and upper limit in Hounsfield units."""
    soft = torch.tensor(WINDOWS["ct-soft"][:2], device=generator.device).expand(count, 2)
    centre = _uniform(count, *CENTRES, generator)
    width = _uniform(count, 0, 1, generator) * (WIDTHS[1] - WIDTHS[0]) + WIDTHS[0]
    drawn = torch.stack([centre - width / 2, centre + width / 2], 1)
    return torch.where(_chance(count, SOFT, generator)[:, None], soft, drawn)


def change_intensities(
    images: Tensor, hounsfield: Tensor, windows: Tensor, generator: torch.Generator
) -> Tensor:
    """Window, gain, gamma and contrast curve, bias field, low resolution, noise and inversion.

    Args:
        images: ``[B, 1, P, P]`` in [0, 1], CT in the window ``ct-wide``.
        hounsfield: bool ``[B]``, which are CT.
        windows: ``[B, 2]``, the CT window around which to vary.

    Returns:
        ``[B, 1, P, P]`` in [0, 1].
    """
    count = len(images)

    def each(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, generator)[:, None, None, None]

    def some(chance: float) -> Tensor:
        return _chance(count, chance, generator)[:, None, None, None]

    images = torch.where(hounsfield[:, None, None, None], _window(images, windows, generator), images)
    images = ((images - 0.5) * each(1 - GAIN, 1 + GAIN) + 0.5 + each(-OFFSET, OFFSET)).clamp(0, 1)
    images = images ** each(-GAMMA, GAMMA).exp()
    images = (
        images
        + each(-CURVE, CURVE) * (torch.pi * images).sin()
        + each(-CURVE, CURVE) * (2 * torch.pi * images).sin()
    )
    cells = torch.randn(count, 1, BIAS_CELLS, BIAS_CELLS, generator=generator, device=generator.device)
    field = functional.interpolate(cells * BIAS, images.shape[-2:], mode="bicubic", align_corners=False)
    images = torch.where(some(BIASED), images * field.exp(), images)
    images = torch.where(some(COARSE), _coarse(images, some(0.5)), images)
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    images = images + noise * each(0, NOISE) * some(NOISY)
    images = images.clamp(0, 1)
    return torch.where(some(INVERTED), 1 - images, images)


def _window(images: Tensor, windows: Tensor, generator: torch.Generator) -> Tensor:
    """CT in ``ct-wide`` -> in windows near the given ones."""
    low, high, _ = WINDOWS["ct-wide"]
    assert low is not None
    assert high is not None
    width = windows[:, 1] - windows[:, 0]
    shift = width * _uniform(len(images), -0.15, 0.15, generator)
    stretch = _uniform(len(images), 0.75, 1.35, generator)
    lower = windows.mean(1) + shift - width * stretch / 2
    values = images * (high - low) + low
    return ((values - lower[:, None, None, None]) / (width * stretch)[:, None, None, None]).clamp(0, 1)


def _coarse(images: Tensor, much: Tensor) -> Tensor:
    """As if scanned with pixels twice or four times as large."""
    side = images.shape[-2:]
    smaller = [
        functional.interpolate(
            functional.avg_pool2d(images, factor), side, mode="bilinear", align_corners=False
        )
        for factor in (2, 4)
    ]
    return torch.where(much, smaller[1], smaller[0])


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def _chance(count: int, chance: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < chance
