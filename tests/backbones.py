"""Backbone files that are quickly made: one as good as random-tiny, and one that is good for nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from fewshot.features import embedded
from fewshot.features.registry import build_model
from fewshot.pretraining.run import write_weights

BLIND = {
    "patch_size": 14,
    "embed_dim": 64,
    "depth": 1,
    "num_heads": 1,
    "img_size": 28,
    "in_chans": 3,
    "init_values": 1.0,
    "mlp_ratio": 1.0,
}


def write_tiny_backbone(file: Path, *, seed: int = 0) -> None:
    """The architecture of random-tiny; seed 0 has its weights but for their precision."""
    model = build_model(None, embedded.TINY, file)
    model.load_state_dict(embedded.random_state(model, seed=seed))
    write_weights(file, model, embedded.TINY, {})


def write_blind_backbone(file: Path) -> None:
    """Everything looks alike to it."""
    model = build_model(None, BLIND, file)
    model.load_state_dict({name: torch.zeros_like(value) for name, value in model.state_dict().items()})
    write_weights(file, model, BLIND, {})
