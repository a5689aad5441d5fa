"""The console script ``fewshot``: every command reads its arguments and calls one function of the engine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot import __version__
from fewshot.console import errors, progress_bars, results
from fewshot.errors import FewshotError
from fewshot.evaluate_command import evaluate
from fewshot.options import (
    BackboneOption,
    BankGbOption,
    BankOption,
    CompleteOption,
    DatasetArgument,
    DeviceOption,
    JsonOption,
    LabelsOption,
    LandmarksOption,
    ModelBackboneOption,
    PlaneOption,
    SeedOption,
    SetOption,
    SizeOption,
    WindowOption,
    chosen_landmarks,
    key_values,
    open_backbone,
    open_backbone_of,
    open_bank,
    require_model_file,
    slice_spec,
    split_names,
    write_json,
)
from fewshot.predict_command import predict
from fewshot.pretrain_command import pretrain

app = typer.Typer(
    name="fewshot",
    help="Few-shot segmentation of medical images: label one template, find the structure in the next volumes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything goes.")] = Path("demo-output"),
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server running at the end.")] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Keep the studies in a PACS (Orthanc): for OHIF, and 3D Slicer.")
    ] = False,
    by_hand: Annotated[
        bool,
        typer.Option("--by-hand", help="Play nothing: label and train yourself; the server stays up."),
    ] = False,
    studies: Annotated[int, typer.Option(min=2, help="How many studies to make up.")] = 6,
    seed: SeedOption = 0,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the server; by default a free one, 8000 if it stays up and that is free."),
    ] = None,
) -> None:
    """Play the whole annotator loop over HTTP on made-up studies."""
    from fewshot.demo import run_demo

    raise typer.Exit(
        run_demo(folder, serve=serve, dicom=dicom, by_hand=by_hand, studies=studies, seed=seed, port=port)
    )


@app.command()
def serve(
    studies: Annotated[str, typer.Argument(help="Folder of studies, or the URL of a DICOMweb server.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    conf: Annotated[
        list[str] | None,
        typer.Option(help="App setting KEY=VALUE, such as labels=liver,spleen; may be repeated."),
    ] = None,
) -> None:
    """Run the MONAI Label server with this app (prints the command that it becomes)."""
    from fewshot.serving import serve as become_server
    from fewshot.serving import serve_command

    settings = {key: str(value) for key, value in key_values(conf, "--conf", parse=False).items()}
    errors.print(
        shlex.join(serve_command(studies, host=host, port=port, conf=settings)), markup=False, soft_wrap=True
    )
    become_server(studies, host=host, port=port, conf=settings)


@app.command()
def extract(
    studies: Annotated[Path, typer.Argument(help="Folder of volumes, or a dataset in any layout.")],
    like: Annotated[Path | None, typer.Option(help="Cut slices as this model file wants them.")] = None,
    backbone: ModelBackboneOption = None,
    device: DeviceOption = "auto",
    bank: BankOption = None,
    bank_gb: BankGbOption = 20.0,
    plane: PlaneOption = "auto",
    window: WindowOption = "auto",
    size: SizeOption = None,
) -> None:
    """Fill the feature bank, so that fitting and predicting later start at once."""
    from fewshot.extraction import extract_features
    from fewshot.landmark_files import holds_landmarks
    from fewshot.landmarks import load_landmark_model
    from fewshot.model import load_model

    spec = slice_spec(plane, window, size)
    if like:
        model = load_landmark_model(like).regions if holds_landmarks(like) else load_model(like)
        if spec != slice_spec("auto", "auto", None):
            raise FewshotError(
                "--like cuts slices as the model wants them; leave out --plane, --window and --size."
            )
        used, spec = open_backbone_of(model, backbone, device), model.spec
        model.require(used)
    else:
        used = open_backbone(backbone or "embedded", device)
    with progress_bars() as progress:
        summary = extract_features(
            studies, backbone=used, bank=open_bank(bank, bank_gb), spec=spec, progress=progress
        )
    for name, reason in summary.failed.items():
        errors.print(f"Left out {name}: {reason}", style="yellow", markup=False, soft_wrap=True)
    results.print(
        f"{summary.computed} computed, {summary.present} already there, {len(summary.failed)} left out."
    )
    if summary.failed and not summary.computed + summary.present:
        raise FewshotError(f"No volume in {studies} could be read.")


@app.command()
def fit(
    dataset: DatasetArgument,
    templates: Annotated[str, typer.Option(help="Template case names, separated by commas.")],
    out: Annotated[Path, typer.Option(help="Model file to write, such as adapter.safetensors.")],
    adapter: Annotated[str, typer.Option(help="One of those that `fewshot info` lists.")] = "auto",
    set_: SetOption = None,
    labels: LabelsOption = None,
    landmarks: LandmarksOption = None,
    radius: Annotated[
        float | None,
        typer.Option(
            help="Of landmarks: half the side of the box around each, in mm; by default from the images."
        ),
    ] = None,
    complete: CompleteOption = None,
    backbone: BackboneOption = "embedded",
    device: DeviceOption = "auto",
    bank: BankOption = None,
    bank_gb: BankGbOption = 20.0,
    plane: PlaneOption = "auto",
    window: WindowOption = "auto",
    size: SizeOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Fit an adapter on labelled templates, or a model of landmarks on marked ones, and write it to a file."""
    from dataclasses import replace

    from fewshot.dataset import Dataset
    from fewshot.pipeline import fit as fit_adapter
    from fewshot.support import label_names

    require_model_file(out)
    opened = Dataset.open(dataset, labels=split_names(labels), landmarks=chosen_landmarks(landmarks))
    cases = opened.choose(split_names(templates) or [])
    if opened.landmarks:
        from fewshot.landmark_command import fit_to_file

        fit_to_file(
            opened if complete is None else replace(opened, complete=complete),
            cases,
            out,
            method=adapter,
            options=key_values(set_),
            radius=radius,
            backbone=open_backbone(backbone, device),
            bank=open_bank(bank, bank_gb),
            spec=slice_spec(plane, window, size),
            seed=seed,
            json_file=json_file,
        )
        return
    if radius is not None:
        raise FewshotError("--radius is for landmarks; ask for them with --landmarks, or leave it out.")
    support = [opened.template(case) for case in cases]
    if complete is not None:
        support = [replace(template, complete=complete) for template in support]
    options = key_values(set_)
    used = open_backbone(backbone, device)
    with progress_bars() as progress:
        model = fit_adapter(
            support,
            labels={name: opened.labels[name] for name in label_names(support)},
            adapter=adapter,
            options=options,
            backbone=used,
            bank=open_bank(bank, bank_gb),
            spec=slice_spec(plane, window, size),
            seed=seed,
            progress=progress,
        )
    model.save(out)
    numbers = {"model": str(out), "digest": model.digest, "labels": model.labels, "scores": model.scores}
    write_json(json_file, {**numbers, "templates": model.templates, "spec": model.spec.to_dict()})
    said = ", ".join(f"{name} {value:.3g}" for name, value in model.scores.items())
    results.print(
        f"{out}: {adapter} adapter for {', '.join(model.labels)}{f' ({said})' if said else ''}",
        markup=False,
        soft_wrap=True,
    )


app.command()(predict)
app.command()(evaluate)
app.command()(pretrain)


@app.command()
def info() -> None:
    """List adapters, baselines and refinements with their settings, ways to prompt, backbones and SAM models."""
    from fewshot.adapters import ADAPTERS
    from fewshot.baselines import BASELINES
    from fewshot.evaluation.methods import baseline_class
    from fewshot.features import BACKBONES, default_bank_folder
    from fewshot.refine import REFINERS, options_of_refiner
    from fewshot.refine.prompts import PROMPTS
    from fewshot.refine.sam import SAMS, sam_at_hand

    results.print(f"fewshot {__version__}; feature bank: {default_bank_folder()}", markup=False)
    for name, kind in ADAPTERS.items():
        _describe("adapter", name, kind.description, kind.Options)
    for name in BASELINES:
        try:
            baseline = baseline_class(name)
        except FewshotError as error:
            _list(f"baseline {name}: {error}")
        else:
            _describe("baseline", name, baseline.description, baseline.Options)
    _list(
        "landmarks: of a dataset with landmarks, or with --landmarks, each adapter learns boxes around them and finds "
        "the centre of the best part; predict measures --distance and --angle"
    )
    for name, refiner in REFINERS.items():
        if refiner and (options := options_of_refiner(name)):
            _describe("refinement", name, refiner.description, options)
    for name, strategy in PROMPTS.items():
        _list(f"prompts {name}: {strategy.description}")
    for name, backbone in BACKBONES.items():
        _list(f"backbone {name}: {backbone.description}")
    for name, sam in SAMS.items():
        _list(f"sam {name}: {sam.description}{'' if sam_at_hand(name) else ' (not on this machine)'}")


def _describe(kind: str, name: str, description: str, options: type[Any]) -> None:
    from dataclasses import fields

    settings = ", ".join(f"{field.name}={field.default}" for field in fields(options))
    _list(f"{kind} {name}: {description}" + (f"\n    --set {settings}" if settings else ""))


def _list(line: str) -> None:
    results.print(line, markup=False, highlight=False)


def main() -> None:
    """Run the console script: exit code 0 on success, 1 with one sentence on an expected failure, 2 on wrong use."""
    try:
        app()
    except FewshotError as error:
        _fail(str(error))
    except OSError as error:
        _fail(
            f"{error.filename or 'A file'}: {error.strerror or error}; check the path, its rights and the disk."
        )


def _fail(sentence: str) -> None:
    errors.print(f"Error: {sentence}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
