"""Landmarks on the engine: as for adapters one computation at a time, nothing heavy imported before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewshot.progress import Progress, silent
from lib.engine import Engine

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkModel, LandmarkPrediction, LandmarkTemplate
    from fewshot.volumes import Volume


def fit(
    engine: Engine,
    templates: Sequence[LandmarkTemplate],
    *,
    method: str,
    options: dict[str, Any] | None = None,
    radius: float | None = None,
    backbone: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> LandmarkModel:
    """Learn landmarks, see `fewshot.landmarks.fit_landmarks`; by default with the backbone in use."""
    from fewshot.landmarks import fit_landmarks

    with engine.turns.take(template.volume for template in templates):
        return fit_landmarks(
            templates,
            backbone=engine.backbone(device, backbone),
            bank=engine.bank,
            method=method,
            options=options,
            spec=engine.spec,
            radius=radius,
            progress=progress,
        )


def find(
    engine: Engine,
    volume: Volume,
    model: LandmarkModel,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> LandmarkPrediction:
    """Find a model's landmarks in a volume, see `fewshot.landmarks.find_landmarks`."""
    from fewshot.landmarks import find_landmarks

    with engine.turns.take([volume], progress):
        return find_landmarks(
            volume,
            model,
            backbone=engine.backbone_of(model.regions, device),
            bank=engine.bank,
            progress=progress,
        )
