"""Compare backbones on real data: `python -m benchmarks.backbones DATA [--backbones a,b] [--out FOLDER]`.

DATA holds the data sets of ``fewshot/weights/embedded-split.json``; only the cases that this file keeps out of
pretraining are used. Every cell is one `fewshot evaluate`; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fewshot.console import progress_bars
from fewshot.evaluation import evaluate
from fewshot.features import FeatureBank, default_bank_folder, load_backbone

SPLIT = Path(__file__).parents[1] / "fewshot" / "weights" / "embedded-split.json"
ADAPTERS = ("classification", "contrastive")
SHOTS = (1, 3)


def main() -> None:
    """Evaluate, print one table, write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbones", default="random,handmade,embedded")
    parser.add_argument("--sets", default=",".join(json.loads(SPLIT.read_text())["evaluation"]))
    parser.add_argument("--max-cases", type=int, default=None)
    parser.add_argument("--bank", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("backbone-results"))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.backbones.split(","):
        for row in _evaluations(name, arguments):
            rows.append(row)
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "backbones.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table("data set", "backbone", "shots", "cases", *ADAPTERS, "seconds")
    for row in sorted(rows, key=lambda row: (row["dataset"], row["shots"])):
        dice = [f"{row['dice'][adapter]:.3f}" for adapter in ADAPTERS]
        table.add_row(
            row["dataset"],
            row["backbone"],
            str(row["shots"]),
            str(row["cases"]),
            *dice,
            f"{row['seconds']:.2f}",
        )
    Console(width=140).print(table)


def _evaluations(name: str, arguments: argparse.Namespace) -> Iterator[dict]:
    backbone = load_backbone(name)
    bank = FeatureBank(arguments.bank or default_bank_folder())
    cases = json.loads(SPLIT.read_text())["evaluation"]
    for dataset in arguments.sets.split(","):
        for shots in SHOTS:
            with progress_bars(title=f"{Path(name).stem} {dataset} {shots}:") as progress:
                measured = evaluate(
                    arguments.data / dataset,
                    adapters=ADAPTERS,
                    backbone=backbone,
                    bank=bank,
                    out=arguments.out / Path(name).stem / f"{dataset}-{shots}",
                    shots=shots,
                    cases=cases[dataset],
                    max_cases=arguments.max_cases,
                    progress=progress,
                )
            yield {"dataset": dataset, "backbone": Path(name).stem, "shots": shots, **summary(measured)}


def summary(measured: dict) -> dict:
    """Mean over cases of the mean Dice over the labels that a case holds, by adapter; seconds of a prediction."""
    rows = measured["rows"]
    features = [of["features"] for of in measured["timings"] if of["features"] is not None]
    return {
        "cases": len({row["case"] for row in rows}),
        "dice": {adapter: measured["overall"][adapter]["dice_mean"] for adapter in ADAPTERS},
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "feature_seconds": float(np.mean(features)) if features else None,
    }


if __name__ == "__main__":
    main()
