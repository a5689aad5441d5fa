"""PerSAM-F: how much each of SAM's three masks counts, learned on the template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEPS, RATE = 1000, 1e-3
ALPHA, GAMMA = 0.25, 2
"""Of the focal loss (Lin et al. 2017)."""


def learn_weights(candidates: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Weights of three masks that sum to 1, by Dice and focal loss on the template slices.

    Only two numbers are trained: SAM stays as it is, so its masks are made once.

    Args:
        candidates: logits ``[3, rows, cols]`` of each template slice.
        masks: bool ``[rows, cols]`` of each.

    Returns:
        The weights, float32 ``[3]``, and the last loss.
    """
    pairs = [
        (torch.from_numpy(of).flatten(1), torch.from_numpy(mask).flatten().float())
        for of, mask in zip(candidates, masks, strict=True)
    ]
    learned = torch.full((2,), 1 / 3, requires_grad=True)
    optimiser = torch.optim.AdamW([learned], lr=RATE, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    loss = torch.zeros(())
    for _ in range(STEPS):
        weights = torch.cat([1 - learned.sum()[None], learned])
        loss = torch.stack([_loss(weights @ of, mask) for of, mask in pairs]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    weights = torch.cat([1 - learned.sum()[None], learned]).detach()
    return weights.numpy(), float(loss.detach())


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    found = logits.sigmoid()
    dice = 1 - (2 * (found * mask).sum() + 1) / (found.sum() + mask.sum() + 1)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    right = found * mask + (1 - found) * (1 - mask)
    balance = ALPHA * mask + (1 - ALPHA) * (1 - mask)
    return dice + (balance * entropy * (1 - right) ** GAMMA).mean()
