"""Find landmarks in images from files to files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.landmark_pictures import landmark_overlay
from fewshot.landmarks import LandmarkModel, LandmarkPrediction, find_landmarks
from fewshot.landmarks.balls import paint_balls
from fewshot.landmarks.files import write_json_file
from fewshot.landmarks.markups import write_markups
from fewshot.landmarks.measures import DISTANCE, Measure
from fewshot.model import HEADER_KEY, LANDMARKS
from fewshot.prediction_files import choose_targets
from fewshot.progress import Progress, silent
from fewshot.volumes import Volume, read_volume, write_labels
from fewshot.volumes.writing import WRITABLE

MARKUPS, JSON, MAP = ".mrk.json", ".json", ".nii.gz"
ENDINGS = (MARKUPS, JSON, *WRITABLE)
DIGITS = 3


def holds_landmarks(path: Path) -> bool:
    """Whether a file is a landmark model; False for all that is none, of which its reader says why."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
    except (SafetensorError, OSError, ValueError):
        return False
    return isinstance(header, dict) and header.get("format") == LANDMARKS


def find_in_files(
    images: Sequence[Path],
    model: LandmarkModel,
    out: Path,
    *,
    backbone: Backbone,
    bank: FeatureBank,
    radius: float | None = None,
    measures: Sequence[Measure] = (),
    picture: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[Path, LandmarkPrediction]:
    """Find the landmarks of every image and write them, each as soon as they are there.

    Args:
        images: files or DICOM folders.
        out: for one image a file: ``.mrk.json`` (Slicer's markups), ``.json`` (all that is known), or a label map of
            balls; or a folder (made if missing) for markups.
        radius: mm, of the balls; by default that of the model's boxes. With a folder: also write label maps.
        measures: distances and angles for a ``.json``.
        picture: also write an overlay PNG beside each file.
        overwrite: replace files that exist; images are never replaced.

    Returns:
        File -> prediction.

    Raises:
        FewshotError: a file may not be written, a radius is given that no file has a use for, or an image cannot be
            read.
    """
    require_length(radius)
    if out.suffix and not out.name.lower().endswith(ENDINGS) and not out.is_dir():
        raise FewshotError(
            f"{out} is of no kind that landmarks are written to; end it in {', '.join(ENDINGS)}, or make a folder of "
            "this name first."
        )
    targets = choose_targets(images, out, endings=ENDINGS, ending=MARKUPS, overwrite=overwrite)
    maps: dict[Path, Path] = {}
    if radius is not None and out not in targets.values():
        maps = choose_targets(images, out, endings=ENDINGS, ending=MAP, overwrite=overwrite)
    elif radius is not None and out.name.lower().endswith(JSON):
        raise FewshotError(
            f"--radius is for label maps of balls, which {out} is none of; end --out in .nii.gz."
        )
    # The model has decided on a window; naming the modality spares a guess that would change nothing.
    modality = "CT" if model.regions.spec.window.startswith("ct-") else None
    predictions = {}
    for done, (image, target) in enumerate(targets.items()):
        progress("read", done, len(targets))
        volume = read_volume(image, modality=modality)
        prediction = find_landmarks(volume, model, backbone=backbone, bank=bank, progress=progress)
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in (target, *([maps[image]] if image in maps else [])):
            _write(file, prediction, volume, model, radius, measures)
        if picture:
            stem = target.name[: -len(next(of for of in ENDINGS if target.name.lower().endswith(of)))]
            landmark_overlay(
                volume,
                prediction,
                target.with_name(f"{stem}.overlay.png"),
                title=volume.name,
                spec=model.regions.spec,
            )
        predictions[target] = prediction
        progress("read", done + 1, len(targets))
    return predictions


def require_length(radius: float | None) -> None:
    """Refuse a ``--radius`` that is none.

    Raises:
        FewshotError: it is not above 0.
    """
    if radius is not None and not 0 < radius < math.inf:
        raise FewshotError(f"--radius is {radius:g}; give millimetres above 0.")


def to_json(
    prediction: LandmarkPrediction, model: LandmarkModel, measures: Sequence[Measure]
) -> dict[str, Any]:
    """All that is known of an image's landmarks, with the values of label maps and with measures."""
    return {
        **prediction.to_json(),
        "label_names": values_of(model),
        "measures": [
            {
                "kind": measure.kind,
                "landmarks": list(measure.names),
                "value": None if value is None else round(value, DIGITS),
                "unit": unit_of(measure, prediction),
            }
            for measure in measures
            for value in [measure.of(prediction.points)]
        ],
    }


def values_of(model: LandmarkModel) -> dict[str, int]:
    """Landmark -> value of its ball in label maps."""
    return {name: value for value, name in enumerate(model.names, start=1)}


def unit_of(measure: Measure, prediction: LandmarkPrediction) -> str:
    """What a measure is counted in."""
    if measure.kind == DISTANCE:
        return "mm" if prediction.calibrated else "pixel"
    return "degrees"


def _write(
    path: Path,
    prediction: LandmarkPrediction,
    volume: Volume,
    model: LandmarkModel,
    radius: float | None,
    measures: Sequence[Measure],
) -> None:
    name = path.name.lower()
    if name.endswith(MARKUPS):
        write_markups(path, prediction)
    elif name.endswith(JSON):
        write_json_file(path, to_json(prediction, model, measures))
    else:
        balls = paint_balls(prediction, model.radius if radius is None else radius, values_of(model))
        write_labels(path, balls, volume)
