"""What ``fewshot fit`` and ``fewshot predict`` do where landmarks are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.console import errors, progress_bars, results
from fewshot.options import open_backbone_of, write_json

if TYPE_CHECKING:
    from fewshot.dataset import Case, Dataset
    from fewshot.features import Backbone, FeatureBank
    from fewshot.landmarks import LandmarkPrediction
    from fewshot.landmarks.measures import Measure
    from fewshot.volumes import SliceSpec


def fit_to_file(
    dataset: Dataset,
    cases: Sequence[Case],
    out: Path,
    *,
    method: str,
    options: dict[str, Any],
    radius: float | None,
    backbone: Backbone,
    bank: FeatureBank,
    spec: SliceSpec,
    seed: int,
    json_file: Path | None,
) -> None:
    """Learn a dataset's landmarks from these cases, write the model, and say what it holds."""
    from fewshot.landmark_files import require_length
    from fewshot.landmarks import fit_landmarks

    require_length(radius)
    templates = [dataset.landmark_template(case) for case in cases]
    with progress_bars() as progress:
        model = fit_landmarks(
            templates,
            backbone=backbone,
            bank=bank,
            method=method,
            options=options,
            spec=spec,
            radius=radius,
            seed=seed,
            progress=progress,
        )
    model.save(out)
    write_json(
        json_file,
        {
            "model": str(out),
            "digest": model.digest,
            "method": model.method,
            "landmarks": model.names,
            "radius": model.radius,
            "scores": model.scores,
            "templates": model.templates,
            "spec": model.regions.spec.to_dict(),
        },
    )
    unit = "mm" if all(template.volume.calibrated for template in templates) else "pixels"
    results.print(
        f"{out}: {model.method} model of {_counted(len(model.names))} {', '.join(model.names)} (boxes of "
        f"{2 * model.radius:.3g} {unit})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if unseen := [name for name in dataset.landmarks if name not in model.names]:
        errors.print(f"No template marks {', '.join(unseen)}.", style="yellow", markup=False, soft_wrap=True)


def find_to_files(
    images: Sequence[Path],
    model_file: Path,
    out: Path,
    *,
    distances: Sequence[str],
    angles: Sequence[str],
    radius: float | None,
    picture: bool,
    overwrite: bool,
    backbone: str | None,
    device: str,
    bank: FeatureBank,
    json_file: Path | None,
) -> None:
    """Find a model's landmarks in images, write them, and say what was found and measured."""
    from fewshot.landmark_files import find_in_files, to_json
    from fewshot.landmarks import load_landmark_model
    from fewshot.landmarks.measures import ANGLE, DISTANCE, parse_measure

    model = load_landmark_model(model_file)
    measures = [parse_measure(DISTANCE, text, model.names) for text in distances]
    measures += [parse_measure(ANGLE, text, model.names) for text in angles]
    used = open_backbone_of(model.regions, backbone, device)
    with progress_bars() as progress:
        predictions = find_in_files(
            images,
            model,
            out,
            backbone=used,
            bank=bank,
            radius=radius,
            measures=measures,
            picture=picture,
            overwrite=overwrite,
            progress=progress,
        )
    write_json(json_file, {str(path): to_json(of, model, measures) for path, of in predictions.items()})
    for path, prediction in predictions.items():
        _tell(path, prediction, measures)


def _tell(path: Path, prediction: LandmarkPrediction, measures: Sequence[Measure]) -> None:
    from fewshot.landmark_files import unit_of

    said = ", ".join(
        f"{name} {of.confidence:.2f}" if of.found else f"{name} not found"
        for name, of in prediction.landmarks.items()
    )
    lines = [
        f"{path}: {len(prediction.points)} of {_counted(len(prediction.landmarks))}, confidence {said} "
        f"({prediction.timings['total']:.2f} s)"
    ]
    for measure in measures:
        value = measure.of(prediction.points)
        unit = unit_of(measure, prediction)
        lines.append(f"  {measure.name}: " + ("not known" if value is None else f"{value:.2f} {unit}"))
    for line in lines:
        results.print(line, markup=False, highlight=False, soft_wrap=True)
    for note in prediction.notes:
        errors.print(f"{path.name}: {note}", style="yellow", markup=False, soft_wrap=True)


def _counted(count: int) -> str:
    return f"{count} landmark" + ("s" if count != 1 else "")
