"""A region of one slice from a few clicks: it grows over what looks like the clicked places, until it meets an edge.

Growing is by geodesic distance (Criminisi et al. 2008, "GeoS: geodesic image segmentation"; Wang et al. 2018,
"DeepIGeoS"): the shortest way from a foreground click, on which every pixel costs as much as it looks different. The
distance at which a region ends is that with the clearest edge. Further clicks correct what is around them, and a
random walk then makes the boundary follow the grey values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from skimage.graph import MCP_Geometric
from torch import Tensor
from torch.nn.functional import normalize

from fewshot.adapters.pixels import at_points, to_pixels
from fewshot.refine.graph import walk

SMOOTH = 1.5
"""Deviation in pixels of the Gaussian before grey values are compared; noise is no edge."""
NEAR = 3
"""Radius in pixels of what a click stands for."""
NOISE_FLOOR = 0.03
"""Least difference of grey values that counts, in terms of the window."""
DIFFERENCE = 5.0
"""So many deviations of the grey values around a click make a pixel look different."""
FEATURE_SHARE = 0.2
"""Weight of the features beside the grey values."""
STEP = 0.01
"""Cost of a pixel that looks the same."""
LARGEST = 0.5
"""Most of the slice that a region covers, unless clicks say otherwise."""
FEWEST = 12
"""Pixels of the smallest region."""
BARRIER = 4.0
"""How much longer the way of a correction is over a pixel that looks different."""
CORRECTED = 1.6
"""A correction reaches so many times as far as the border of what is wrong."""
LEAST_HALF = 2.0
"""Pixels; errors thinner than this are corrected as if they were so wide."""
LEVELS = 40
SIZE_COUNTS = 0.5
"""Power of a region's size by which its contrast counts: of two clear edges the outer one is meant."""
RIM = 5
"""Pixels across which the boundary's contrast is measured."""
SHARPNESS = 6.0
"""Log odds over the distance at which a region ends."""
WEIGHT = 0.1
CONTRAST = 1.0


@dataclass(frozen=True, eq=False)
class Look:
    """How one slice looks.

    Attributes:
        image: float32 ``[H, W]`` in [0, 1], smoothed.
        noise: deviation of its grey values.
        features: unit vectors ``[h, w, dim]``.
        spread: typical distance between features of this slice.
        patch: pixels from one feature to the next.
    """

    image: np.ndarray
    noise: float
    features: Tensor
    spread: float
    patch: int

    @classmethod
    def of(cls, image: np.ndarray, features: Tensor, patch: int) -> Look:
        """Prepare an image ``[H, W]`` and its features ``[h, w, dim]``; H and W may end within a patch."""
        smooth = ndimage.gaussian_filter(image, SMOOTH)
        noise = float(np.median(np.abs(image - smooth)[image > 0])) if (image > 0).any() else 0.0
        unit = normalize(features, dim=-1)
        some = unit.flatten(0, 1)[:: max(1, unit.shape[0] * unit.shape[1] // 256)]
        spread = float((1 - some @ some.T).mean())
        return cls(smooth, noise, unit, max(spread, 1e-4), patch)

    def difference(self, points: np.ndarray) -> np.ndarray:
        """How different each pixel looks from the nearest-looking of some points ``[N, 2]``, float32 ``[H, W]``.

        1 is as much as it takes to be something else.
        """
        height, width = self.image.shape
        ys, xs = ((torch.arange(side) + 0.5) / self.patch - 0.5 for side in (height, width))
        places = (torch.from_numpy(points).float() + 0.5) / self.patch - 0.5
        own = normalize(at_points(self.features, places[:, 0], places[:, 1]), dim=-1)
        apart = to_pixels((1 - self.features @ own.T)[None], ys, xs)[0].numpy() / self.spread
        best = np.full(self.image.shape, np.inf, np.float32)
        for number, (row, col) in enumerate(np.rint(points).astype(int)):
            around = self.image[max(0, row - NEAR) : row + NEAR + 1, max(0, col - NEAR) : col + NEAR + 1]
            scale = DIFFERENCE * max(
                NOISE_FLOOR, self.noise, float(np.median(np.abs(around - np.median(around))))
            )
            grey = (self.image - np.float32(np.median(around))) / np.float32(scale)
            best = np.minimum(best, grey**2 + np.float32(FEATURE_SHARE) * apart[..., number] ** 2)
        return best


def grow(look: Look, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The region around the foreground points of a slice.

    Args:
        look: the slice.
        foreground: float ``[N, 2]``, N > 0, (row, col) in pixels of the image.
        background: float ``[M, 2]``.

    Returns:
        Probability of the region, float32 ``[H, W]``.
    """
    first, more = foreground[:1], foreground[1:]
    different = look.difference(first)
    cost = different / (different + 1)
    reached = _distances(cost + STEP, first)
    end = _clearest(cost, reached)
    odds = np.clip(SHARPNESS * (1 - reached / end), -SHARPNESS, SHARPNESS)
    for point in more:
        if odds[_pixel(point)] <= 0:
            odds = np.maximum(odds, _around(look, point, odds <= 0))
    for point in background:
        if odds[_pixel(point)] > 0:
            nearer = _apart(odds.shape, point[None]) < _apart(odds.shape, foreground)
            odds = np.where(nearer, np.minimum(odds, -_around(look, point, odds > 0)), odds)
    inside = 1 / (1 + np.exp(-odds))
    return _smoothed(look, inside.astype(np.float32), foreground, background)


def _around(look: Look, point: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Log odds that a correction was also meant for the pixels around it.

    Who corrects clicks in the middle of what is wrong: how far its border is tells how far a correction goes.
    """
    half = max(LEAST_HALF, float(ndimage.distance_transform_edt(wrong)[_pixel(point)]))
    different = look.difference(point[None])
    way = _distances(1 + BARRIER * different / (different + 1), point[None])
    return np.clip(SHARPNESS * (1 - way / (CORRECTED * half)), -SHARPNESS, SHARPNESS)


def _apart(shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    """Distance of every pixel from the nearest point."""
    places = np.ones(shape, bool)
    for point in points:
        places[_pixel(point)] = False
    return np.asarray(ndimage.distance_transform_edt(places))


def _pixel(point: np.ndarray) -> tuple[int, int]:
    row, col = np.rint(point).astype(int)
    return int(row), int(col)


def _distances(cost: np.ndarray, points: np.ndarray) -> np.ndarray:
    places = [tuple(place) for place in np.rint(points).astype(int)]
    return np.asarray(MCP_Geometric(cost).find_costs(places)[0], np.float32)


def _clearest(cost: np.ndarray, reached: np.ndarray) -> float:
    """The distance at which the difference between the pixels on both sides of the boundary is largest.

    Args:
        cost: of every pixel, ``[H, W]``.
        reached: their distances.
    """
    near = np.sort(reached.ravel())
    last = min(int(LARGEST * near.size), len(near) - 1)
    if last <= FEWEST:
        return max(float(near[-1]), STEP)
    counts = np.unique(np.geomspace(FEWEST, last, LEVELS).astype(int))
    lowest = ndimage.minimum_filter(reached, RIM)  # of the pixels around
    highest = ndimage.maximum_filter(reached, RIM)
    best, end = -np.inf, float(near[counts[0]])
    for level, count in zip(near[counts], counts, strict=True):
        ring = (reached > level) & (lowest <= level)
        rim = (reached <= level) & (highest > level)
        if ring.any() and rim.any():
            contrast = float(cost[ring].mean() - cost[rim].mean()) * float(count) ** SIZE_COUNTS
            if contrast > best:
                best, end = contrast, float(level)
    return max(end, STEP)


def _smoothed(look: Look, inside: np.ndarray, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Let the region's boundary follow the grey values; clicks are certain."""
    weight = np.full(inside.shape, WEIGHT, np.float32)
    for points, value in ((foreground, 1.0), (background, 0.0)):
        for row, col in np.rint(points).astype(int):
            inside[row, col], weight[row, col] = value, 100.0
    where = (inside > 0.02) & (inside < 0.98)
    where = ndimage.binary_dilation(where, iterations=2)
    prior = np.stack([1 - inside, inside], axis=-1)[None]
    scale = max(NOISE_FLOOR, look.noise)
    found = walk(
        (look.image / np.float32(scale))[None, None],
        prior,
        weight[None],
        spacing=(np.inf, 1, 1),
        contrast=CONTRAST,
        where=where[None],
    )
    return found[0, ..., 1]


REACH = 2.0
"""Pixels over which the place of a boundary may change between two slices counts less and less."""
AROUND = 8
"""Width in pixels of the surroundings that an object is told from."""
EVIDENCE = 3.0
"""Most log odds that grey values, or features, may give."""


def likely(look: Look, beside: Look, mask: np.ndarray) -> np.ndarray:
    """The object in a slice next to one where it is known.

    Place and looks are judged apart and added as log odds: how far inside the known cross-section a pixel lies, and
    whether it looks more like it or like its surroundings there.

    Args:
        look: the slice.
        beside: the slice where the object is known.
        mask: bool ``[H, W]``, its cross-section there, not empty.

    Returns:
        Probability, float32 ``[H, W]``.
    """
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    odds = (inside - outside) / REACH
    ring = (outside > 1) & (outside <= AROUND)
    if ring.any():
        odds = odds + _grey_odds(look.image, beside.image[mask], beside.image[ring])
        odds = odds + _feature_odds(look, beside, mask, ring)
    odds = np.where(outside > AROUND, -20, odds)
    found = (1 / (1 + np.exp(-np.clip(odds, -20, 20)))).astype(np.float32)
    none = np.zeros((0, 2))
    return _smoothed(look, found, none, none)


def _grey_odds(image: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Log odds of two normal distributions of grey values."""
    parts = []
    for values in (own, other):
        deviation = max(NOISE_FLOOR, float(values.std()))
        parts.append(-(((image - values.mean()) / deviation) ** 2) / 2 - np.log(deviation))
    return np.clip(parts[0] - parts[1], -EVIDENCE, EVIDENCE)


def _feature_odds(look: Look, beside: Look, mask: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Log odds by the mean features of the object and its surroundings: their midpoint is undecided."""
    means = [_mean_feature(beside, region) for region in (mask, ring)]
    apart = float((means[0] - means[1]).square().sum())
    if apart < 1e-6:
        return np.zeros(mask.shape, np.float32)
    towards = (look.features - (means[0] + means[1]) / 2) @ (means[0] - means[1]) * (2 * EVIDENCE / apart)
    ys, xs = ((torch.arange(side) + 0.5) / look.patch - 0.5 for side in mask.shape)
    return np.clip(to_pixels(towards[None, ..., None], ys, xs)[0, ..., 0].numpy(), -EVIDENCE, EVIDENCE)


def _mean_feature(look: Look, region: np.ndarray) -> Tensor:
    """Mean feature of at most some hundred pixels of a region ``[H, W]``."""
    places = np.argwhere(region)
    places = places[:: max(1, len(places) // 512)]
    rows, cols = ((torch.from_numpy(places[:, axis]).float() + 0.5) / look.patch - 0.5 for axis in (0, 1))
    return at_points(look.features, rows, cols).mean(0)
