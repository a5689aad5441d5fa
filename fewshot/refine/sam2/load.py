"""SAM 2 models from tensors that were already read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.features.embedded import random_state
from fewshot.refine.sam2.architecture import RANDOM_TINY, build, recognise
from fewshot.refine.sam2.model import Sam2Model

RANDOM = "random-tiny-2"

SURE = 5.0
"""Object score of the model with random weights: it sees an object in every slice."""

STRONGER = {
    "memory_encoder.mask_downsampler.encoder.12.weight": 10.0,
    "cross_attn_image.": 3.0,
    "sam_prompt_encoder.point_embeddings.": 8.0,
    "sam_prompt_encoder.mask_downscaling.6.weight": 8.0,
}
"""Random weights that are multiplied, else prompts and memory would hardly change a mask and no test would see it."""


def load_sam2(
    name: str,
    state: Mapping[str, Tensor] | None,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> Sam2Model:
    """A SAM 2 model, of whichever size its tensors have.

    Args:
        name: registered name, or file for messages.
        state: tensors by name, as in the official files under ``model``; None for ``random-tiny-2``.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        dtype: precision of the encoder; by default bfloat16 where the processor has it.

    Raises:
        FewshotError: if the tensors are not those of a SAM 2.
    """
    if state is None:
        if name != RANDOM:
            raise FewshotError(f"There are no weights of {name}; give a SAM 2 checkpoint or choose {RANDOM}.")
        network = build(RANDOM_TINY)
        network.load_state_dict(_random_state(network))
        return Sam2Model(name, network, device=device, dtype=dtype, note="random weights")
    architecture = recognise(name, state)
    if architecture is None:
        raise FewshotError(
            f"{name} holds no SAM 2 model that is known here (tiny, small, base plus or large); "
            "give an official SAM 2 or SAM 2.1 file, or one fine-tuned from it."
        )
    network = build(architecture)
    _fill(name, network, state)
    return Sam2Model(name, network, device=device, dtype=dtype)


def _fill(name: str, network: Any, state: Mapping[str, Tensor]) -> None:
    """Load all tensors, none missing and none left over."""
    wanted = network.state_dict()
    missing, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    other = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    if wrong := [*missing, *surplus, *sorted(other)]:
        raise FewshotError(
            f"{name} looks like a SAM 2 model but does not fit it ({len(missing)} tensors missing, {len(surplus)} "
            f"unknown, {len(other)} of another shape, first {wrong[0]}); download the file again or give another."
        )
    network.load_state_dict(dict(state))


def _random_state(network: Any) -> dict[str, Tensor]:
    state = random_state(network)
    frequencies = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    state[frequencies].mul_(
        state[frequencies].shape[1] ** 0.5
    )  # of deviation 1, else all positions look alike
    for key, factor in STRONGER.items():
        for name in state:
            if key in name:
                state[name].mul_(factor)
    last = max(key for key in state if key.startswith("sam_mask_decoder.pred_obj_score_head.layers"))
    scores = last.rpartition(".")[0]
    state[f"{scores}.weight"].mul_(0.1)
    state[f"{scores}.bias"].fill_(SURE)
    return state
