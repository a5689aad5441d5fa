"""Train a small U-Net on patches within a budget of time or steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from fewshot.baselines.common import UNKNOWN
from fewshot.baselines.patches import PatchSource
from fewshot.progress import Progress

MEASURED_STEPS = 10
"""After so many steps at the full rate the number of steps that fit into the time is fixed."""

OVERTIME = 1.5
"""A training stops at this multiple of its time even if its steps are not done, as on a machine that got busy."""

POWER = 0.9
"""Of the polynomial decay of the learning rate."""

LARGE = 1e4
"""A logit that leaves no probability, and yet finite, so that 0 times it is 0."""


def make_network(
    channels: tuple[int, ...], strides: list[tuple[int, ...]], classes: int, *, seed: int
) -> nn.Module:
    """A residual U-Net of MONAI with instance norm.

    Args:
        channels: of each level.
        strides: from each level to the next, per axis.
        classes: background included.
        seed: of its initial weights.
    """
    from monai.networks.nets import UNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = UNet(
            spatial_dims=len(strides[0]),
            in_channels=1,
            out_channels=classes,
            channels=channels,
            strides=strides,
            num_res_units=2,
            norm=("INSTANCE", {"affine": True}),
        )
    return network


def train(
    network: nn.Module,
    source: PatchSource,
    *,
    batch: int,
    seconds: float,
    steps: int,
    rate: float,
    dtype: torch.dtype,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Train in place with AdamW.

    The first steps run at the full rate; from how long they take it follows how many fit into ``seconds``,
    at most ``steps``, and the rate falls to 0 over these. So the same number of steps gives the same
    weights, however long it takes.

    Returns:
        ``steps`` done, the ``planned_steps`` by which the rate fell, ``seconds`` and the mean ``loss`` of
        the last tenth of the steps.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    network.train()
    begin = last = clock()
    durations: list[float] = []
    losses: list[float] = []
    planned = steps
    while len(losses) < planned:
        done = len(losses)
        if done == MEASURED_STEPS:
            left = seconds - (clock() - begin)
            planned = min(steps, done + max(1, int(left / statistics.median(durations[2:]))))
        decay = max(0, done - MEASURED_STEPS) / max(1, planned - MEASURED_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - decay) ** POWER
        images, classes, undrawn = (part.to(device) for part in source.batch(batch))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(images)
        loss = dice_and_cross_entropy(logits.float(), classes, undrawn)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        now = clock()
        durations.append(now - last)
        last = now
        progress("train", 100 * len(losses) // planned, 100, loss=losses[-1])
        if last - begin > OVERTIME * seconds:
            break
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": len(losses),
        "planned_steps": planned,
        "loss": round(sum(tail) / len(tail), 4),
    }


def dice_and_cross_entropy(logits: Tensor, classes: Tensor, undrawn: Tensor) -> Tensor:
    """Soft Dice of the labels plus cross entropy, on known voxels only.

    What is background where some labels were not looked for may be one of these: there their probabilities
    count as background (marginal loss, Shi et al. 2021).

    Args:
        logits: ``[B, L + 1, *axes]``.
        classes: int64 ``[B, *axes]`` with ``UNKNOWN``.
        undrawn: bool ``[B, L + 1]``.
    """
    if undrawn.any():
        logits = marginal(logits, undrawn)
    known = classes != UNKNOWN
    entropy = cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum") / known.sum().clamp(min=1)
    mask = known[:, None].float()
    target = one_hot(classes.clamp(min=0), logits.shape[1]).movedim(-1, 1) * mask
    found = logits.softmax(1) * mask
    axes = (0, *range(2, logits.ndim))
    overlap, size = (found * target).sum(axes)[1:], (found + target).sum(axes)[1:]
    return entropy + 1 - ((2 * overlap + 1) / (size + 1)).mean()


def marginal(logits: Tensor, undrawn: Tensor) -> Tensor:
    """Add the probabilities of undrawn labels to the background's, sample by sample."""
    hidden = undrawn.reshape(*undrawn.shape, *[1] * (logits.ndim - 2))
    joined = hidden.clone()
    joined[:, 0] = True
    background = logits.masked_fill(~joined, -LARGE).logsumexp(1, keepdim=True)
    rest = logits[:, 1:].masked_fill(hidden[:, 1:], -LARGE)
    return torch.cat([background, rest], 1)


def sliding_probabilities(
    network: nn.Module, image: Tensor, patch: tuple[int, ...], *, dtype: torch.dtype, batch: int
) -> Any:
    """Probabilities float32 ``[B, L + 1, *axes]`` of images ``[B, 1, *axes]``, overlapping patches weighted."""
    from monai.inferers import sliding_window_inference

    device = next(network.parameters()).device
    network.eval()

    def classify(part: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(part)
        return logits.float().softmax(1)

    with torch.inference_mode():
        return sliding_window_inference(
            image,
            roi_size=patch,
            sw_batch_size=batch,
            predictor=classify,
            overlap=0.5,
            mode="gaussian",
            padding_mode="replicate",
            sw_device=device,
            device=torch.device("cpu"),
        )
