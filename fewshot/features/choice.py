"""Which backbone ``auto`` stands for on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.errors import FewshotError
from fewshot.features.device import choose_device
from fewshot.features.download import cached, fetch
from fewshot.features.registry import BACKBONES
from fewshot.progress import Progress

ON_CPU, ON_GPU = "dinov2_vits14_reg", "dinov2_vitb14_reg"
"""On a CPU a slice takes ViT-B about three times as long as ViT-S, and an annotator waits for whole studies; a GPU has
time for both. With registers, because the models without them spend a few patches of the background on notes of their
own (arXiv:2309.16588), which look like structures to an adapter that compares patches. Of DINOv2, because its licence
asks for nothing to be accepted first."""

FALLBACK = "embedded"

PATIENCE = 3.0
"""Seconds to find out whether there is a network."""


@dataclass(frozen=True)
class Choice:
    """A backbone's name, and why it was taken, to be read after a colon."""

    name: str
    reason: str


def choose_backbone(device: str = "auto", *, progress: Progress | None = None) -> Choice:
    """Official weights if they are on this machine or can be downloaded now, else the embedded backbone.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``; decides the size.
        progress: told of a download, see `load_backbone`.

    Raises:
        FewshotError: only for a device that does not exist.
    """
    name = ON_GPU if choose_device(device).type == "cuda" else ON_CPU
    weights = BACKBONES[name].weights
    assert weights
    if cached(weights):
        return Choice(name, "its weights are on this machine")
    try:
        fetch(name, weights, progress=progress, patience=PATIENCE)
    except FewshotError as error:
        return Choice(FALLBACK, str(error).partition("; ")[0])
    return Choice(name, "its weights were downloaded now")
