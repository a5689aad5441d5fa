"""Whether a trained backbone is better than the one in use, and how it takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from lib.landmarks import computing
from lib.models import LANDMARKS, PublishedLandmarks, PublishedModels
from lib.project import Project
from lib.trainers.stats import BackboneStats

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkModel
    from fewshot.progress import Progress
    from fewshot.support import Template

ADAPTER = "classification"
"""What backbones are compared with. Between seeds its score varied half as much as the contrastive adapter's, in two
thirds of the time (deviation 0.0075 and 0.016 on made-up studies); either needs good features to be good."""

SEEDS = 3
TOLERANCE = 0.005
"""A new backbone may score so much less than the old one: about the deviation of a mean over `SEEDS` fits, so that a
difference of this size says nothing."""


def compare(
    project: Project, file: Path, templates: Sequence[Template], stats: BackboneStats, *, device: str
) -> dict[str, dict[str, float]]:
    """How well templates that were left out are found with the backbone in use and with a new one.

    Args:
        file: the new one's weights.

    Returns:
        Under "old" and "new" the Dice coefficient of every label, mean over `SEEDS` fits.

    Raises:
        TooFewLabelsError: if no template can be left out.
    """
    backbones = {"old": project.workspace.backbone_now(), "new": str(file)}
    epochs = project.settings.max_epochs
    labels = list(project.drawn_labels(templates))
    scores: dict[str, dict[str, float]] = {}
    for place, (which, backbone) in enumerate(backbones.items()):
        found = [
            project.engine.cross_validate(
                templates,
                adapter=ADAPTER,
                labels=labels,
                options={"epochs": epochs} if epochs else None,
                backbone=backbone,
                seed=seed,
                device=device,
                progress=stats.within("compare", place * SEEDS + seed, SEEDS * len(backbones)),
            ).dice
            for seed in range(SEEDS)
        ]
        scores[which] = {label: round(fmean(dice[label] for dice in found), 4) for label in found[0]}
    return scores


def publish(
    project: Project, file: Path, templates: Sequence[Template], stats: BackboneStats, *, device: str
) -> dict[str, str]:
    """Put a new backbone in the place of the one in use.

    The templates' features come first, then every adapter that was ever published is fitted anew as it was before, and
    so are landmarks. Files appear only when all is computed, the backbone's record last: the server finds everything
    in place.

    Returns:
        The version of each adapter.

    Raises:
        FewshotError: with the reason; everything is as before.
    """
    engine, backbone = project.engine, str(file)
    spec = engine.slicing([template.volume for template in templates], backbone=backbone)
    for place, template in enumerate(templates):
        progress = stats.within("bank", place, len(templates))
        engine.warm(template.volume, spec, backbone=backbone, device=device, progress=progress)
    names = project.workspace.trained_models()
    published = [PublishedModels(name, project) for name in names if name != LANDMARKS]
    parts = len(names)
    labels = project.drawn_labels(templates)
    fitted = []
    for place, models in enumerate(published):
        adapter = models.load().adapter
        fitted.append(
            engine.fit(
                templates,
                adapter=adapter.name,
                labels=labels,
                options=asdict(adapter.options),
                backbone=backbone,
                device=device,
                progress=stats.within("adapters", place, parts),
            )
        )
    points = PublishedLandmarks(LANDMARKS, project)
    landmarks = _landmarks(points, project, backbone, stats.within("adapters", parts - 1, parts), device)
    versions = {models.name: models.publish(model) for models, model in zip(published, fitted, strict=True)}
    if landmarks:
        versions[LANDMARKS] = points.publish(landmarks)
    project.workspace.publish_backbone(file)
    return versions


def _landmarks(
    models: PublishedLandmarks, project: Project, backbone: str, progress: Progress, device: str
) -> LandmarkModel | None:
    """Landmarks on a new backbone; None if there were none, or nobody marks one any more: the model keeps its own."""
    if not models.versions():
        return None
    templates = project.landmarks.templates()
    if not templates:
        return None
    before = models.load()
    return computing.fit(
        project.engine,
        templates,
        method=before.method,
        options=asdict(before.regions.adapter.options),
        radius=before.radius,
        backbone=backbone,
        device=device,
        progress=progress,
    )
