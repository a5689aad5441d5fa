"""What a user would pick instead of an adapter, behind one interface: for comparison, never for the server."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fewshot.baselines.base import Baseline
from fewshot.errors import FewshotError

BASELINES: dict[str, str] = {
    "registration": "fewshot.baselines.registration:Registration",
    "unet": "fewshot.baselines.unet:UNet",
    "universeg": "fewshot.baselines.universeg:UniverSeg",
    "persam": "fewshot.baselines.persam:PerSAM",
}
"""Name -> where its class is; imported when asked for, because some need large packages."""


def create_baseline(name: str, options: Mapping[str, Any] | None = None, *, device: str = "auto") -> Baseline:
    """A baseline by name, not fitted yet.

    Raises:
        FewshotError: for an unknown name, unsuitable options, or a missing package or weights file.
    """
    if name not in BASELINES:
        raise FewshotError(f"There is no baseline '{name}'; choose one of {', '.join(BASELINES)}.")
    module, _, kind = BASELINES[name].partition(":")
    found: type[Baseline] = getattr(import_module(module), kind)
    return found.create(options, device=device)


__all__ = ["BASELINES", "Baseline", "create_baseline"]
