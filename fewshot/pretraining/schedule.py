"""How the settings change from the start (0) to the end (1) of a training."""

from __future__ import annotations

import math

import torch

from fewshot.pretraining.settings import PretrainSettings

FINAL_RATE = 0.01
FINAL_MOMENTUM = 0.9995
DECAY_GROWTH = 5


def learning_rate(settings: PretrainSettings, share: float) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if share < settings.warmup:
        return settings.learning_rate * share / settings.warmup
    rest = (share - settings.warmup) / (1 - settings.warmup)
    return settings.learning_rate * cosine(1.0, FINAL_RATE, rest)


def momentum(settings: PretrainSettings, share: float) -> float:
    """Of the teacher."""
    return cosine(settings.teacher_momentum, max(FINAL_MOMENTUM, settings.teacher_momentum), share)


def weight_decay(settings: PretrainSettings, share: float) -> float:
    """Grows, as in DINOv2."""
    return cosine(settings.weight_decay, DECAY_GROWTH * settings.weight_decay, share)


def cosine(start: float, end: float, share: float) -> float:
    """From start to end on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2


def set_optimiser(optimiser: torch.optim.Optimizer, settings: PretrainSettings, share: float) -> None:
    """Give the optimiser its values for this moment."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, share)
        if group["decayed"]:
            group["weight_decay"] = weight_decay(settings, share)
