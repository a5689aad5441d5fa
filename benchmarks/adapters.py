"""The exact decompositions of the adapters against naive pairing and interpolation of whole features."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from benchmarks.timing import Row, compare, seconds
from fewshot.adapters.base import PixelNetwork
from fewshot.adapters.classification import ClassificationAdapter
from fewshot.adapters.contrastive import ContrastiveAdapter
from fewshot.adapters.pixels import to_pixels
from fewshot.adapters.samples import Samples

DIM = 192
TEMPLATES = 100
PIXELS = 65_536
PAIR_CHUNK = 1 << 17


def rows() -> list[Row]:
    """Contrastive prediction and the first layer before interpolation."""
    return [*contrastive_rows(), interpolation_row()]


def contrastive_rows() -> list[Row]:
    """100 template vectors on 65,536 pixels: against naive pairing, and against the classification adapter."""
    torch.manual_seed(0)
    targets = torch.arange(4000) % 2
    samples = Samples(
        torch.randn(4000, DIM) + 2 * targets[:, None],
        targets,
        torch.arange(4000) % 10,
        torch.nn.functional.one_hot(targets, 2).bool(),
        torch.ones(4000),
    )
    contrastive = ContrastiveAdapter.create(DIM, 1, {"epochs": 1, "references": TEMPLATES})
    classification = ClassificationAdapter.create(DIM, 1, {"epochs": 1})
    contrastive.fit(samples)
    classification.fit(samples)
    maps = torch.randn(1, 32, 32, DIM)
    axis = (torch.arange(256) + 0.5) / 8 - 0.5

    def fast() -> torch.Tensor:
        return contrastive.predict(maps, axis, axis)

    naive_seconds = seconds(lambda: naive_pairing(contrastive, to_pixels(maps, axis, axis).reshape(-1, DIM)))
    plain, ours = compare(lambda: classification.predict(maps, axis, axis), fast, repeats=20)
    relative = ours / plain
    return [
        Row(
            "contrastive, 100 templates x 65,536 pixels: naive pairing / ours",
            naive_seconds,
            ours,
            naive_seconds / ours,
            ">= 200",
            naive_seconds / ours >= 200,
        ),
        Row("contrastive / classification", plain, ours, relative, "<= 1.5", relative <= 1.5),
    ]


@torch.inference_mode()
def naive_pairing(adapter: ContrastiveAdapter, pixels: torch.Tensor) -> torch.Tensor:
    """The plain way: both vectors of every pair go through f, the head and a softmax; then the mean."""
    total = torch.zeros(len(pixels))
    step = PAIR_CHUNK // len(adapter.references)
    for start in range(0, len(pixels), step):
        chunk = pixels[start : start + step]
        first = adapter.references[None].expand(len(chunk), -1, -1).reshape(-1, DIM)
        second = chunk[:, None].expand(-1, len(adapter.references), -1).reshape(-1, DIM)
        pairs = torch.cat([adapter.network(first), adapter.network(second)], dim=1)
        similar = adapter.head(pairs).softmax(1)[:, 1]
        total[start : start + step] = similar.reshape(len(chunk), -1).mean(1)
    return total


def interpolation_row() -> Row:
    """First layer, then interpolation, 32 x 32 -> 448 x 448, 384 channels to 64."""
    network = PixelNetwork(384, (64, 2))
    maps = torch.randn(1, 32, 32, 384)
    axis = (torch.arange(448) + 0.5) / 14 - 0.5
    channels_first = maps.permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        pixels = interpolate(channels_first, size=(448, 448), mode="bilinear", align_corners=False)
        return network.narrow(pixels.permute(0, 2, 3, 1))

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return to_pixels(network.narrow(maps), axis, axis)

    difference = float((plain() - ours()).abs().max())
    if difference > 1e-4:
        raise AssertionError(f"the two ways differ by {difference}")
    slow, fast = compare(plain, ours)
    return Row(
        "first layer before interpolation, 384 channels, 32x32 -> 448x448: plain / ours",
        slow,
        fast,
        slow / fast,
        ">= 8",
        slow / fast >= 8,
    )
