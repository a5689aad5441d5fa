"""``fewshot pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot.console import errors, progress_bars, results
from fewshot.options import DeviceOption, JsonOption, SetOption, key_values, require_model_file, write_json


def pretrain(
    studies: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of volumes, volumes, or .json lists of them; no labels needed.",
            metavar="STUDIES...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Weights file to write, such as weights.safetensors.")],
    start: Annotated[
        str | None,
        typer.Option(help="Backbone to go on from (a name or file); by default random weights."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Train so long; 0 for no limit.")] = 0.0,
    images: Annotated[
        int | None, typer.Option(min=0, help="Train on so many images; 0 for no limit.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Images in a step, all processes together.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Compute a step in so many parts, to save memory.")
    ] = None,
    set_: SetOption = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the paths in .json lists.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew instead of going on from the checkpoint.")
    ] = False,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(help="Of slices, crops and initial weights.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Train a backbone on studies without labels (DINOv2's recipe); goes on where it was interrupted.

    Several GPUs: torchrun --nproc-per-node N -m fewshot pretrain ...
    """
    from dataclasses import asdict

    from fewshot.pretraining import PretrainSettings, open_studies
    from fewshot.pretraining import pretrain as run
    from fewshot.pretraining.run import run_folder

    require_model_file(out)
    told = {"images": images, "batch": batch, "accumulate": accumulate}
    if minutes and images is None:
        told["images"] = 0  # the clock decides alone
    chosen = {name: value for name, value in told.items() if value is not None}
    settings = PretrainSettings.create({**key_values(set_), **chosen, "minutes": minutes, "seed": seed})
    readers = open_studies(studies, root=root)
    errors.print(
        f"Curves: tensorboard --logdir {run_folder(out)}; pictures of the features: {run_folder(out) / 'pictures'}",
        markup=False,
        soft_wrap=True,
    )
    with progress_bars() as progress:
        result = run(
            readers,
            out,
            start=start,
            settings=settings,
            device=device,
            restart=restart,
            progress=progress,
        )
    for name, reason in result.failed.items():
        errors.print(f"Left out {name}: {reason}", style="yellow", markup=False, soft_wrap=True)
    write_json(json_file, {**asdict(result), "path": str(result.path)})
    results.print(
        f"{out}: {result.images} images in {result.seconds / 60:.1f} minutes, {len(readers) - len(result.failed)} "
        f"studies, {len(result.failed)} left out{', went on from a checkpoint' if result.resumed else ''}",
        markup=False,
        soft_wrap=True,
    )
