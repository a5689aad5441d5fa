"""What may follow a prediction: each refiner takes a volume and its prediction and returns a better one."""

from __future__ import annotations

from collections.abc import Callable

from fewshot.prediction import Prediction
from fewshot.volumes import Volume

Refiner = Callable[[Volume, Prediction], Prediction]

UNREFINED = "none"

REFINERS: dict[str, Refiner] = {
    UNREFINED: lambda _, prediction: prediction,
}


def method_name(method: str, refine: str) -> str:
    """How tables and folders call an adapter or baseline with a refiner."""
    return method if refine == UNREFINED else f"{method}+{refine}"
