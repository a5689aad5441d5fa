"""``fewshot evaluate``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot.console import progress_bars, results
from fewshot.errors import FewshotError
from fewshot.options import (
    BackboneOption,
    BankGbOption,
    BankOption,
    CasesOption,
    CompleteOption,
    ComponentsOption,
    DatasetArgument,
    DeviceOption,
    JsonOption,
    LabelsOption,
    PlaneOption,
    SamOption,
    SeedsOption,
    SetOfOption,
    SizeOption,
    WindowOption,
    chosen_cases,
    chosen_seeds,
    method_options,
    names_or_none,
    open_backbone,
    open_bank,
    slice_spec,
    split_names,
    write_json,
)


def evaluate(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.html, models and predictions.")],
    adapters: Annotated[
        str, typer.Option(help="Adapters, separated by commas, or none.")
    ] = "auto,contrastive,classification,basic",
    baselines: Annotated[
        str, typer.Option(help="Baselines to compare with, separated by commas (see `fewshot info`).")
    ] = "none",
    refine: Annotated[
        str,
        typer.Option(
            help="Refinements, separated by commas: none (predictions as they are), walker, sam, sam2, auto."
        ),
    ] = "none",
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompting strategies, separated by commas (see `fewshot info`): refinements that take prompts, such "
            "as sam, are tried with each."
        ),
    ] = None,
    sam: SamOption = "auto",
    set_: SetOfOption = None,
    shots: Annotated[int, typer.Option(min=1, help="How many templates to draw.")] = 1,
    templates: Annotated[str | None, typer.Option(help="Template case names instead of drawn ones.")] = None,
    template_slices: Annotated[
        int | None, typer.Option(min=1, help="Only so many labelled slices of every template are known.")
    ] = None,
    labels: LabelsOption = None,
    cases: CasesOption = None,
    complete: CompleteOption = None,
    components: ComponentsOption = "auto",
    max_cases: Annotated[int | None, typer.Option(min=1, help="At most so many cases.")] = None,
    backbone: BackboneOption = "embedded",
    device: DeviceOption = "auto",
    bank: BankOption = None,
    bank_gb: BankGbOption = 20.0,
    plane: PlaneOption = "auto",
    window: WindowOption = "auto",
    size: SizeOption = None,
    seeds: SeedsOption = None,
    seed: Annotated[int | None, typer.Option(help="One seed; 0 by default.")] = None,
    landmarks: Annotated[
        str | None,
        typer.Option(
            help="Evaluate landmarks: these, separated by commas, or all. Of a dataset without files of points, the "
            "centres of these labels. A dataset of points alone is evaluated so anyway."
        ),
    ] = None,
    crops: Annotated[
        bool | None,
        typer.Option(
            "--crops/--no-crops",
            help="Whether to search cropped volumes for landmarks that are not in them; by default they are searched.",
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Fit adapters and baselines on a few templates, predict all other cases, and report how well it went."""
    from fewshot.dataset import Dataset

    chosen, compared = names_or_none(adapters), names_or_none(baselines)
    of_landmarks = landmarks is not None or (labels is None and bool(Dataset.open(dataset).landmarks))
    given = {
        "--refine": refine != "none",
        "--prompts": prompts is not None,
        "--sam": sam != "auto",
        "--template-slices": template_slices is not None,
        "--components": components != "auto",
        "--labels": labels is not None,
        "--complete or --partial": complete is not None,
    }
    if of_landmarks and (strange := [option for option, is_given in given.items() if is_given]):
        raise FewshotError(f"{strange[0]} is for labels, and landmarks are evaluated here; leave it out.")
    if crops is not None and not of_landmarks:
        raise FewshotError(
            "--crops and --no-crops are for landmarks; add --landmarks all, or leave them out."
        )
    shared: dict[str, Any] = {
        "adapters": chosen,
        "baselines": compared,
        "out": out,
        "shots": shots,
        "templates": split_names(templates),
        "cases": chosen_cases(cases, dataset),
        "seeds": chosen_seeds(seed, seeds),
        "spec": slice_spec(plane, window, size),
        "max_cases": max_cases,
        "device": device,
        "command": shlex.join(["fewshot", *sys.argv[1:]]),
    }
    if of_landmarks:
        from fewshot.evaluation.landmarks import evaluate_landmarks, print_summary

        run: Callable[..., dict[str, Any]] = evaluate_landmarks
        shared |= {
            "landmarks": "all" if landmarks in (None, "all") else split_names(landmarks) or [],
            "crops": crops is not False,
            "options": method_options(set_, [*chosen, *compared]),
        }
    else:
        from fewshot.evaluation import evaluate as run
        from fewshot.evaluation import print_summary
        from fewshot.refine import options_of_refiner

        refiners = split_names(refine) or ["none"]
        set_up = [name for name in dict.fromkeys(refiners) if options_of_refiner(name)]
        shared |= {
            "refiners": refiners,
            "prompts": split_names(prompts),
            "sam": sam,
            "template_slices": template_slices,
            "labels": split_names(labels),
            "complete": complete,
            "components": components,
            "options": method_options(set_, [*chosen, *compared, *set_up]),
        }
    used = open_backbone(backbone, device)
    with progress_bars() as progress:
        measured = run(dataset, backbone=used, bank=open_bank(bank, bank_gb), progress=progress, **shared)
    write_json(json_file, measured)
    print_summary(measured, results)
    results.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)
