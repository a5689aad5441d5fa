"""``fewshot evaluate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fewshot.console import progress_bars, results
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
    json_file: JsonOption = None,
) -> None:
    """Fit adapters and baselines on a few templates, predict all other cases, and report how well it went."""
    from fewshot.evaluation import evaluate as run
    from fewshot.evaluation import print_summary
    from fewshot.refine import UNREFINED, options_of_refiner

    chosen, compared = names_or_none(adapters), names_or_none(baselines)
    refiners = split_names(refine) or [UNREFINED]
    set_up = [name for name in dict.fromkeys(refiners) if options_of_refiner(name)]
    options = method_options(set_, [*chosen, *compared, *set_up])
    drawn = chosen_seeds(seed, seeds)
    used = open_backbone(backbone, device)
    with progress_bars() as progress:
        measured = run(
            dataset,
            adapters=chosen,
            baselines=compared,
            refiners=refiners,
            prompts=split_names(prompts),
            sam=sam,
            backbone=used,
            bank=open_bank(bank, bank_gb),
            out=out,
            shots=shots,
            templates=split_names(templates),
            template_slices=template_slices,
            labels=split_names(labels),
            cases=chosen_cases(cases, dataset),
            complete=complete,
            seeds=drawn,
            components=components,
            spec=slice_spec(plane, window, size),
            options=options,
            max_cases=max_cases,
            device=device,
            command=shlex.join(["fewshot", *sys.argv[1:]]),
            progress=progress,
        )
    write_json(json_file, measured)
    print_summary(measured, results)
    results.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)
