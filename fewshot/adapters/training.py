"""One loop that trains every adapter: Adam, held-out pixels, early stopping, the best state kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot.progress import Progress
from fewshot.settings import number


@dataclass(frozen=True)
class TrainingOptions:
    """Settings shared by the trained adapters.

    Attributes:
        epochs: at most so many.
        steps: optimiser steps in an epoch.
        batch: pixels (or pairs) in a step.
        learning_rate: Adam's.
        weight_decay: Adam's, decoupled.
        patience: epochs without a better held-out accuracy before training stops.
    """

    epochs: int = 40
    steps: int = 25
    batch: int = 1024
    learning_rate: float = number(2e-3, above=0, below=1)
    weight_decay: float = number(1e-4, above=-1e-9, below=1)
    patience: int = 8


def train(
    module: nn.Module,
    *,
    options: TrainingOptions,
    loss: Callable[[], Tensor],
    accuracy: Callable[[], float],
    progress: Progress,
    to_the_end: bool = False,
) -> dict[str, float]:
    """Minimise ``loss`` until ``accuracy`` on held-out pixels no longer grows; keep the best state.

    Args:
        module: its parameters are trained in place.
        loss: draws a batch and returns its mean loss.
        accuracy: balanced accuracy on held-out pixels, 0 to 1.
        progress: told after every epoch, with the accuracy and loss so far.
        to_the_end: run all epochs and keep the last state, where held-out pixels of the same templates are no guide.

    Returns:
        ``accuracy`` of the kept state, and the ``epochs`` that were run.
    """
    optimiser = torch.optim.AdamW(
        module.parameters(), options.learning_rate, weight_decay=options.weight_decay
    )
    best, best_epoch, best_state = -math.inf, 0, copy.deepcopy(module.state_dict())
    epoch = 0
    for epoch in range(1, options.epochs + 1):
        module.train()
        total = 0.0
        for _ in range(options.steps):
            value = loss()
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(value.detach())
        module.eval()
        with torch.no_grad():
            reached = accuracy()
        if reached > best or to_the_end:
            best, best_epoch, best_state = reached, epoch, copy.deepcopy(module.state_dict())
        progress("train", epoch, options.epochs, accuracy=max(best, 0.0), loss=total / options.steps)
        if epoch - best_epoch >= options.patience:
            break
    module.load_state_dict(best_state)
    module.eval()
    return {"accuracy": float(best), "epochs": float(epoch)}


def balanced_accuracy(predicted: Tensor, targets: Tensor) -> float:
    """Mean recall over the classes that occur."""
    recalls = [(predicted[targets == target] == target).float().mean() for target in targets.unique()]
    return float(torch.stack(recalls).mean()) if recalls else 0.0
