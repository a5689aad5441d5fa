"""Predict images from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.model import Model
from fewshot.pictures import overlay
from fewshot.pipeline import predict
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.refine import Refiner
from fewshot.volumes import read_volume, write_labels
from fewshot.volumes.raw import EXTENSIONS, case_name


def predict_files(
    images: Sequence[Path],
    model: Model,
    out: Path,
    *,
    backbone: Backbone,
    bank: FeatureBank,
    components: str = "auto",
    min_ml: float = 0.0,
    refiner: Refiner | None = None,
    seed: int = 0,
    picture: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[Path, Prediction]:
    """Predict every image and write its label map, each as soon as it is there.

    Args:
        images: files or DICOM folders.
        out: a label file for one image; a folder (made if missing) for several, or if it has no image extension.
        refiner: makes what was found follow the structure's edges.
        seed: of the refiner's prompts.
        picture: also write an overlay PNG beside each label map.
        overwrite: replace label maps that exist; images are never replaced.

    Returns:
        Label file -> prediction.
    """
    targets = choose_targets(images, out, endings=EXTENSIONS, ending=".nii.gz", overwrite=overwrite)
    # The model has decided on a window; naming the modality spares a guess that would change nothing.
    modality = "CT" if model.spec.window.startswith("ct-") else None
    predictions = {}
    for done, (image, target) in enumerate(targets.items()):
        progress("read", done, len(targets))
        volume = read_volume(image, modality=modality)
        prediction = predict(
            volume,
            model,
            backbone=backbone,
            bank=bank,
            components=components,
            min_ml=min_ml,
            refiner=refiner,
            seed=seed,
            progress=progress,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_labels(target, prediction.labels, volume)
        if picture:
            overlay(
                volume,
                prediction.labels,
                model.labels,
                target.with_name(f"{case_name(target)}.overlay.png"),
                title=volume.name,
            )
        predictions[target] = prediction
        progress("read", done + 1, len(targets))
    return predictions


def choose_targets(
    images: Sequence[Path], out: Path, *, endings: Sequence[str], ending: str, overwrite: bool
) -> dict[Path, Path]:
    """Where the result of every image goes; never to one of the images.

    Args:
        images: files or DICOM folders.
        out: a file for one image, or a folder.
        endings: by which a file is told from a folder.
        ending: of files in a folder.
        overwrite: whether a result that exists may be replaced.

    Returns:
        Image -> file.

    Raises:
        FewshotError: one file for several images, two images of one name, a file that exists, or an image would be
            overwritten.
    """
    targets = _named(images, out, endings, ending)
    sources = {image.resolve() for image in images}
    for image, target in targets.items():
        if target.exists() and target.resolve() not in sources and not overwrite:
            raise FewshotError(f"{target} exists; give another --out, or --overwrite to replace it.")
        if target.resolve() in sources:
            raise FewshotError(
                f"The result of {image} would overwrite the image {target}; give another --out."
            )
    return targets


def _named(images: Sequence[Path], out: Path, endings: Sequence[str], ending: str) -> dict[Path, Path]:
    is_file = out.name.lower().endswith(tuple(endings)) and not out.is_dir()
    if len(images) == 1 and is_file:
        return {images[0]: out}
    if is_file:
        raise FewshotError(
            f"{out} is one file, but there are {len(images)} images; give a folder with --out."
        )
    targets = {image: out / f"{case_name(image)}{ending}" for image in images}
    if len(set(targets.values())) < len(images):
        raise FewshotError("Two images have the same name; predict them into different folders.")
    return targets
