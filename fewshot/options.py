"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewshot.errors import FewshotError

if TYPE_CHECKING:
    from fewshot.features import Backbone, FeatureBank
    from fewshot.model import Model
    from fewshot.refine import Refiner
    from fewshot.volumes import SliceSpec

DatasetArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder in one of three layouts: images/, labels/ or landmarks/, and dataset.json; Medical "
        "Segmentation Decathlon (also nnU-Net and MONAI); or TotalSegmentator. See docs/how-to/datasets.md."
    ),
]
BACKBONE_VALUES = "NAME|FILE|FOLDER|embedded|auto"
BackboneOption = Annotated[
    str,
    typer.Option(
        help="Backbone: a name (see `fewshot info`), a checkpoint file, a Hugging Face folder, or auto: official "
        "weights if they are here or can be downloaded, else embedded.",
        metavar=BACKBONE_VALUES,
    ),
]
ModelBackboneOption = Annotated[
    str | None,
    typer.Option(
        help="Where the backbone of the model is, if not where the model says; without a model, embedded.",
        metavar=BACKBONE_VALUES,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
BankOption = Annotated[
    Path | None, typer.Option(help="Feature bank folder; by default in the user's cache folder.")
]
BankGbOption = Annotated[float, typer.Option(help="Size limit of the feature bank in GB.")]
PlaneOption = Annotated[str, typer.Option(help="auto, axial, coronal or sagittal.")]
WindowOption = Annotated[
    str, typer.Option(help="Intensity window: auto, percentile, ct-soft, ct-wide, ct-bone, ct-lung.")
]
SizeOption = Annotated[
    int | None, typer.Option(help="Pixels of a slice's longer side; by default the backbone's.")
]
SeedOption = Annotated[int, typer.Option(help="Same seed, same result.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]
LabelsOption = Annotated[str | None, typer.Option(help="Only these labels, separated by commas.")]
LandmarksOption = Annotated[
    str | None,
    typer.Option(
        help="Landmarks, separated by commas, or all: of a dataset with labels alone, their centres. By default all "
        "landmarks of a dataset without labels.",
    ),
]
CasesOption = Annotated[
    str | None,
    typer.Option(
        help="Only these cases, separated by commas, or a .json file that lists them under evaluation, by folder."
    ),
]
CompleteOption = Annotated[
    bool | None,
    typer.Option(
        "--complete/--partial",
        help="Whether a template's slices without label are background or unknown; by default as dataset.json says.",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Adapter setting KEY=VALUE; may be repeated.")
]
SetOfOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Setting METHOD.KEY=VALUE of an adapter, baseline or refinement, such as unet.seconds=60 or sam.points=5; "
        "may be repeated.",
    ),
]
SetOfRefinerOption = Annotated[
    list[str] | None, typer.Option("--set", help="Setting KEY=VALUE of the refinement; may be repeated.")
]
PromptsOption = Annotated[
    str | None,
    typer.Option(
        help="How SAM is told what was localised, such as random, box or kmeans (see `fewshot info`); by default as "
        "its settings say."
    ),
]
SamOption = Annotated[
    str,
    typer.Option(
        help="Segment Anything weights: a name (see `fewshot info`), a checkpoint file, or auto: those that are here.",
        metavar="NAME|FILE|auto",
    ),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(help="Several seeds, such as 0,1,2: each draws its own templates and trains anew."),
]
ComponentsOption = Annotated[
    str,
    typer.Option(
        help="auto keeps as many connected parts of a label as its templates have; or largest, all."
    ),
]


def open_backbone(name: str, device: str, *, layers: list[int] | None = None) -> Backbone:
    """The backbone that ``--backbone`` and ``--device`` ask for; downloads and choices are told on stderr."""
    from fewshot.console import errors, progress_bars
    from fewshot.features import AUTO, choose_backbone, load_backbone

    with progress_bars() as progress:
        if name == AUTO:
            choice = choose_backbone(device, progress=progress)
            name = choice.name
            errors.print(f"Backbone {name}: {choice.reason}.", markup=False, highlight=False, soft_wrap=True)
        return load_backbone(name, device=device, layers=layers, progress=progress)


def open_backbone_of(model: Model, name: str | None, device: str) -> Backbone:
    """The backbone of a fitted model; ``name`` says where it is, if not where the model says (``auto``: there)."""
    from fewshot.features import AUTO

    return open_backbone(name if name and name != AUTO else model.backbone, device, layers=model.layers)


def open_bank(folder: Path | None, gigabytes: float) -> FeatureBank:
    """The feature bank that ``--bank`` and ``--bank-gb`` ask for."""
    from fewshot.features import FeatureBank, default_bank_folder

    return FeatureBank(folder or default_bank_folder(), gigabytes=gigabytes)


def open_refiner(
    name: str,
    *,
    prompts: str | None,
    sam: str,
    pairs: list[str] | None,
    bank: FeatureBank,
    device: str,
) -> Refiner | None:
    """The refiner that ``--refine``, ``--prompts``, ``--sam`` and ``--set`` ask for; a choice is told on stderr."""
    from fewshot.console import errors, progress_bars
    from fewshot.refine import create_refiner

    options = key_values(pairs) | ({"prompts": prompts} if prompts is not None else {})
    if prompts is not None and name == "auto":
        name = "sam"  # nothing else is prompted slice by slice
    with progress_bars() as progress:
        refiner = create_refiner(name, bank=bank, sam=sam, device=device, options=options, progress=progress)
    if refiner is None and options:
        raise FewshotError("--prompts and --set are for a refinement; add --refine, such as --refine sam.")
    if refiner is not None and refiner.why:
        said = f"Refinement {refiner.name}: {refiner.why}; --refine chooses."
        errors.print(said, markup=False, highlight=False, soft_wrap=True)
    return refiner


def slice_spec(plane: str, window: str, size: int | None) -> SliceSpec:
    """The slicing that ``--plane``, ``--window`` and ``--size`` ask for."""
    from fewshot.volumes import SliceSpec

    return SliceSpec(plane=plane, window=window, size=size)


def names_or_none(text: str | None) -> list[str]:
    """Names separated by commas, of which there may be none: "none" or nothing."""
    names = split_names(text) or []
    return [] if names == ["none"] else names


def split_names(text: str | None) -> list[str] | None:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


def chosen_landmarks(text: str | None) -> list[str] | Literal["all"] | None:
    """The names that ``--landmarks`` gives."""
    return "all" if text == "all" else split_names(text)


def chosen_cases(text: str | None, dataset: Path) -> list[str] | None:
    """The names that ``--cases`` gives, itself or in a file ``{"evaluation": {dataset folder: [case, ...]}}``."""
    if not text or not text.endswith(".json"):
        return split_names(text)
    try:
        return [
            str(name) for name in json.loads(Path(text).read_text())["evaluation"][dataset.resolve().name]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewshotError(
            f"{text} lists no cases of {dataset.resolve().name} ({type(error).__name__}: {error}); write "
            '{"evaluation": {"FOLDER": ["CASE"]}}.'
        ) from error


def key_values(pairs: list[str] | None, option: str = "--set", *, parse: bool = True) -> dict[str, Any]:
    """``KEY=VALUE`` arguments; values that are JSON (numbers, true, false, lists) are read as such."""
    settings: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FewshotError(f"{option} {pair} is not of the form KEY=VALUE.")
        settings[key] = value
        if parse:
            with suppress(json.JSONDecodeError):  # not a number or true/false: it is a word
                settings[key] = json.loads(value)
    return settings


def method_options(pairs: list[str] | None, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``METHOD.KEY=VALUE`` arguments; METHOD may be left out where only one of the methods can be meant.

    Args:
        pairs: the arguments.
        methods: names of the adapters, baselines and refinements that are evaluated.

    Raises:
        FewshotError: for a method that is not evaluated, or if it is not clear which is meant.

    Returns:
        Method -> its settings, only those that were given.
    """
    from fewshot.evaluation.methods import options_of
    from fewshot.refine import options_of_refiner

    found: dict[str, dict[str, Any]] = {}
    for key, value in key_values(pairs).items():
        method, dot, name = key.partition(".")
        if dot and method not in methods:
            raise FewshotError(
                f"--set {key} is for {method}, which is not evaluated here; choose {', '.join(methods)}."
            )
        if not dot:
            name = key
            settings = {
                each: [field.name for field in fields(kind)]
                for each in methods
                if (kind := options_of(each) or options_of_refiner(each)) is not None
            }
            meant = [each for each, names in settings.items() if name in names] or [
                each for each, names in settings.items() if names
            ]
            if len(meant) != 1:
                raise FewshotError(
                    f"--set {key} does not say for which method; write {'|'.join(meant or methods)}.{key}=VALUE."
                )
            method = meant[0]
        found.setdefault(method, {})[name] = value
    return found


def chosen_seeds(seed: int | None, seeds: str | None) -> list[int]:
    """The seeds that ``--seed`` or ``--seeds`` give; 0 without either."""
    if seeds is None:
        return [0 if seed is None else seed]
    if seed is not None:
        raise FewshotError("Give --seed or --seeds, not both.")
    try:
        return [int(text) for text in seeds.split(",")]
    except ValueError:
        raise FewshotError(f"--seeds {seeds} is not a list of whole numbers such as 0,1,2.") from None


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Write the numbers of a command, if a file was asked for."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))


def require_model_file(path: Path) -> None:
    """Refuse an output path that should not become a model file, before anything is computed."""
    if path.is_dir():
        raise FewshotError(f"{path} is a folder; give the name of the file to write.")
    if path.suffix != ".safetensors":
        raise FewshotError(f"A model file ends in .safetensors; {path} does not.")
