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
    ComponentsOption,
    DatasetArgument,
    DeviceOption,
    JsonOption,
    LabelsOption,
    ModelBackboneOption,
    PlaneOption,
    PromptsOption,
    SamOption,
    SeedOption,
    SetOfRefinerOption,
    SetOption,
    SizeOption,
    WindowOption,
    key_values,
    open_backbone,
    open_backbone_of,
    open_bank,
    open_refiner,
    require_model_file,
    slice_spec,
    split_names,
    write_json,
)
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
    from fewshot.model import load_model

    spec = slice_spec(plane, window, size)
    if like:
        model = load_model(like)
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
    """Fit an adapter on labelled templates and write it to a file."""
    from dataclasses import replace

    from fewshot.dataset import Dataset
    from fewshot.pipeline import fit as fit_adapter
    from fewshot.support import label_names

    require_model_file(out)
    opened = Dataset.open(dataset, labels=split_names(labels))
    support = [opened.template(case) for case in opened.choose(split_names(templates) or [])]
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


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images: files or DICOM folders.", metavar="IMAGE...")],
    model: Annotated[Path, typer.Option(help="Model file that `fewshot fit` or the server wrote.")],
    out: Annotated[Path, typer.Option(help="Label map to write, or a folder (for several images always).")],
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
    picture: Annotated[
        bool, typer.Option("--picture", help="Also write an overlay PNG beside each label map.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace label maps that exist.")] = False,
    backbone: ModelBackboneOption = None,
    device: DeviceOption = "auto",
    bank: BankOption = None,
    bank_gb: BankGbOption = 20.0,
    json_file: JsonOption = None,
) -> None:
    """Find all labels of a model in one or more images."""
    from fewshot.model import load_model
    from fewshot.prediction_files import predict_files

    loaded = load_model(model)
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
