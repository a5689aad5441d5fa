"""``fewshot predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewshot.console import errors, progress_bars, results
from fewshot.errors import FewshotError
from fewshot.options import (
    BankGbOption,
    BankOption,
    ComponentsOption,
    DeviceOption,
    JsonOption,
    ModelBackboneOption,
    PromptsOption,
    SamOption,
    SeedOption,
    SetOfRefinerOption,
    open_backbone_of,
    open_bank,
    open_refiner,
    write_json,
)

OF_LABELS = ("components", "min_ml", "refine", "prompts", "sam", "set_", "seed")
OF_LANDMARKS = ("radius", "distance", "angle")
"""Arguments that have a meaning for labels alone, and for landmarks alone."""


def predict(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="Images: files or DICOM folders.", metavar="IMAGE...")],
    model: Annotated[Path, typer.Option(help="Model file that `fewshot fit` or the server wrote.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Label map to write, or a folder (for several images always). Of landmarks also .mrk.json (Slicer's "
            "markups, as in a folder) or .json; a label map shows them as balls."
        ),
    ],
    components: ComponentsOption = "auto",
    min_ml: Annotated[float, typer.Option(help="Drop connected parts smaller than this many ml.")] = 0.0,
    refine: Annotated[
        str,
        typer.Option(
            help="Refinement of what was localised: none, walker, sam, sam2, or auto, which is SAM where weights are "
            "at hand that this machine can use quickly, else walker."
        ),
    ] = "auto",
    prompts: PromptsOption = None,
    sam: SamOption = "auto",
    set_: SetOfRefinerOption = None,
    seed: SeedOption = 0,
    radius: Annotated[
        float | None,
        typer.Option(help="Of landmarks: radius of the balls in mm; with a folder, write label maps too."),
    ] = None,
    distance: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Distance of two landmarks; may be repeated.")
    ] = None,
    angle: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B,C", help="Angle at the second of three landmarks; may be repeated."),
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture", help="Also write an overlay PNG beside each result.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    backbone: ModelBackboneOption = None,
    device: DeviceOption = "auto",
    bank: BankOption = None,
    bank_gb: BankGbOption = 20.0,
    json_file: JsonOption = None,
) -> None:
    """Find all labels, or all landmarks, of a model in one or more images."""
    from fewshot.landmark_files import holds_landmarks
    from fewshot.model import load_model
    from fewshot.prediction_files import predict_files

    if holds_landmarks(model):
        from fewshot.landmark_command import find_to_files

        _refuse_given(context, OF_LABELS, f"{model} holds landmarks")
        find_to_files(
            images,
            model,
            out,
            distances=distance or [],
            angles=angle or [],
            radius=radius,
            picture=picture,
            overwrite=overwrite,
            backbone=backbone,
            device=device,
            bank=open_bank(bank, bank_gb),
            json_file=json_file,
        )
        return
    loaded = load_model(model)
    _refuse_given(context, OF_LANDMARKS, f"{model} holds no landmarks")
    storage = open_bank(bank, bank_gb)
    refiner = open_refiner(refine, prompts=prompts, sam=sam, pairs=set_, bank=storage, device=device)
    used = open_backbone_of(loaded, backbone, device)
    with progress_bars() as progress:
        predictions = predict_files(
            images,
            loaded,
            out,
            backbone=used,
            bank=storage,
            components=components,
            min_ml=min_ml,
            refiner=refiner,
            seed=seed,
            picture=picture,
            overwrite=overwrite,
            progress=progress,
        )
    write_json(json_file, {str(path): prediction.to_json() for path, prediction in predictions.items()})
    for path, prediction in predictions.items():
        found = ", ".join(
            f"{n} {c:.2f}" if c is not None else f"{n} not found" for n, c in prediction.confidence.items()
        )
        refined = prediction.provenance.get("refine")
        how = f", refined by {refined['refiner']}" if refined else ""
        results.print(
            f"{path}: confidence {found} ({prediction.timings['total']:.2f} s{how})",
            markup=False,
            soft_wrap=True,
        )
        for note in prediction.notes:
            errors.print(f"{path.name}: {note}", style="yellow", markup=False, soft_wrap=True)


def _refuse_given(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that somebody gave and that have no meaning here.

    Args:
        context: of the command.
        names: of the command's parameters.
        why: they have none.

    Raises:
        FewshotError: for the first of them.
    """
    for name in names:
        source = context.get_parameter_source(name)
        # an enum of Click's, or of the Click inside Typer
        if source is not None and source.name == "COMMANDLINE":
            option = name.rstrip("_").replace("_", "-")
            raise FewshotError(f"--{option} has no meaning here: {why}; leave it out.")
