"""One Markdown table of evaluations: `python -m benchmarks.methods RESULTS...` (folders of `fewshot evaluate`)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.evaluation.table import interval, mean

HEADERS = (
    "data set",
    "templates",
    "cases",
    "method",
    "Dice [95 %]",
    "IoU",
    "HD95, mm",
    "< 10 px",
    "false slices",
    "ECE",
    "fit, s",
    "new study, s",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    print("|", " | ".join(HEADERS), "|")
    print("|", " | ".join(["---"] * len(HEADERS)), "|")
    for folder in parser.parse_args().results:
        for line in lines(json.loads((folder / "results.json").read_text(encoding="utf-8"))):
            print("|", " | ".join(line), "|")


def lines(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line per method, the best Dice first; the data set is named once."""
    ranked = sorted(results["overall"].items(), key=lambda item: -(item[1]["dice_mean"] or 0))
    for number, (method, of) in enumerate(ranked):
        hits = of["hit_10px_mean"]
        yield (
            *((results["dataset"], str(results["shots"]), str(of["cases"])) if not number else ("", "", "")),
            method,
            interval(of, "dice", 2),
            mean(of, "iou", 2),
            mean(of, "hd95_mm", 1),
            "–" if hits is None else f"{hits:.0%}",
            f"{of['false_positive_slices']}/{of['slices_without_label']}",
            mean(of, "ece", 2),
            _seconds(of_model["seconds"] for of_model in results["models"] if of_model["adapter"] == method),
            _seconds(_new_study(results, method)),
        )


def _new_study(results: dict[str, Any], method: str) -> Iterator[float | None]:
    """Reading, computing features and predicting, case by case."""
    seconds = {
        (row["seed"], row["case"]): row["seconds"] for row in results["rows"] if row["adapter"] == method
    }
    for timing in results["timings"]:
        if timing["adapter"] == method and timing["total"] is not None:
            yield timing["read"] + (timing["features"] or 0) + seconds[timing["seed"], timing["case"]]


def _seconds(values: Iterator[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "–"


if __name__ == "__main__":
    main()
