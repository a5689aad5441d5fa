"""The results of an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fewshot.dataset import Dataset
from fewshot.evaluation.boxplot import box_plot
from fewshot.evaluation.store import write_text
from fewshot.evaluation.summary import HEADERS, case_means, notices, score_cells, spread, summarise_cases
from fewshot.pictures import overlay
from fewshot.volumes import SliceSpec, Volume, read_labels

PICTURE_PX = 320
"""Longer side of a slice in a picture."""

WEBP_QUALITY = 80
"""A tenth of the size of a PNG; contours stay sharp."""


def prediction_path(folder: Path, adapter: str, case: str) -> Path:
    """Where an evaluation keeps a predicted label map."""
    return folder / "predictions" / adapter / f"{case}.nii.gz"


def write_report(folder: Path | str, dataset: Dataset) -> Path:
    """Write `report.html` beside `results.json`, with pictures, style and plot inside the one file.

    Args:
        folder: the output folder of `evaluate`.
        dataset: whose images and label maps the pictures show.

    Raises:
        FewshotError: an image of the dataset can no longer be read.

    Returns:
        The path of the report.
    """
    folder = Path(folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    means = case_means(results["rows"])
    dice = {
        adapter: {case: of["dice"] for case, of in cases.items() if of["dice"] is not None}
        for adapter, cases in means.items()
    }
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(page).render(
        results=results,
        count=len({row["case"] for row in results["rows"]}),
        notices=notices(results),
        headers=HEADERS[2:],
        overall=[(adapter, score_cells(of)) for adapter, of in summarise_cases(results["rows"]).items()],
        plot=box_plot(dice, title="Dice per case, one box per adapter"),
        adapters=list(results["summary"]),
        labels=_label_table(results),
        pictures=_pictures(folder, dataset, results, dice),
        seconds=_seconds(results),
        settings=_settings(results),
    )
    write_text(folder / "report.html", html)
    return folder / "report.html"


def extremes(dice: Mapping[str, float]) -> dict[str, str]:
    """The cases with the best, the median and the worst Dice: rank -> case; fewer where there are fewer."""
    order = sorted(dice, key=lambda case: (-dice[case], case))
    if not order:
        return {}
    ranks = {"best": order[0], "worst": order[-1], "median": order[len(order) // 2]}
    distinct = {case: rank for rank, case in reversed(ranks.items())}
    return {rank: ranks[rank] for rank in ("best", "median", "worst") if distinct[ranks[rank]] == rank}


def _pictures(
    folder: Path, dataset: Dataset, results: Mapping[str, Any], dice: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, list[dict[str, str]]]]:
    """Overlays of the extreme cases of each adapter; every case is read once."""
    picked: dict[str, list[tuple[str, str]]] = {}
    for adapter, of in dice.items():
        for rank, case in extremes(of).items():
            picked.setdefault(case, []).append((adapter, rank))
    figures: dict[tuple[str, str], dict[str, str]] = {}
    for case, wanted in picked.items():
        there = [
            (adapter, rank) for adapter, rank in wanted if prediction_path(folder, adapter, case).is_file()
        ]
        if not there or case not in dataset.labelled:
            continue
        volume = dataset.volume(dataset.cases[case])
        truth = dataset.label_map(dataset.cases[case], volume)
        for adapter, rank in there:
            labels = read_labels(prediction_path(folder, adapter, case), volume)
            scores = {
                row["label"]: row["dice"]
                for row in results["rows"]
                if (row["case"], row["adapter"]) == (case, adapter)
            }
            data = _picture(f"{case}, {adapter}", volume, labels, truth, scores, results["settings"])
            figures[adapter, rank] = {
                "rank": rank,
                "case": case,
                "dice": f"{dice[adapter][case]:.2f}",
                "data": data,
            }
    return [
        (adapter, [figures[adapter, rank] for rank in extremes(of) if (adapter, rank) in figures])
        for adapter, of in dice.items()
    ]


def _picture(
    title: str,
    volume: Volume,
    labels: np.ndarray,
    truth: np.ndarray,
    scores: Mapping[str, float | None],
    settings: Mapping[str, Any],
) -> str:
    """An overlay as a data URI."""
    from PIL import Image

    spec = replace(SliceSpec.from_dict(settings["spec"]), size=PICTURE_PX, pixel_mm=None)
    with tempfile.TemporaryDirectory() as scratch:
        path = overlay(
            volume,
            labels,
            settings["labels"],
            Path(scratch) / "overlay.png",
            truth=truth,
            scores=scores,
            title=title,
            spec=spec,
        )
        packed = io.BytesIO()
        with Image.open(path) as picture:
            picture.convert("RGB").save(packed, "WEBP", quality=WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _label_table(results: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Label -> one cell per adapter; the best mean Dice of a label is marked where there is a choice."""
    summary = results["summary"]
    table = []
    for label in dict.fromkeys(label for of in summary.values() for label in of):
        values = [of.get(label) for of in summary.values()]
        means = [of["dice_mean"] for of in values if of and of["dice_mean"] is not None]
        cells = [
            {
                "dice": spread(of, "dice", 2) if of else "–",
                "iou": spread(of, "iou", 2) if of else "",
                "best": bool(of) and len(means) > 1 and of["dice_mean"] == max(means),
            }
            for of in values
        ]
        table.append((label, cells))
    return table


def _seconds(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Seconds per stage: fitting per adapter, the others as a mean over the cases."""
    lines = [(f"fit {adapter}", f"{of['seconds']:.2f}") for adapter, of in results["models"].items()]
    for stage in ("read", "features"):
        spent = [of[stage] for of in results["stages"].values()]
        if spent:
            lines.append((f"{stage}, per case", f"{sum(spent) / len(spent):.2f}"))
    for adapter, of in summarise_cases(results["rows"]).items():
        lines.append((f"predict {adapter}, per case", f"{of['seconds_mean']:.2f}"))
    return lines


def _settings(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report lists below the command: the settings on which all rows depend."""
    settings = results["settings"]
    spec = next((of["spec"] for of in results["models"].values()), settings["spec"])
    slices = ", ".join(f"{key} {value}" for key, value in spec.items() if value is not None)
    lines = [
        ("templates", ", ".join(results["templates"])),
        ("labels", ", ".join(settings["labels"])),
        ("slices", slices),
        ("backbone", " ".join(map(str, settings["backbone"]))),
        *(
            (key, str(settings[key]))
            for key in ("seed", "components", "refine", "complete", "modality", "version")
        ),
        *((f"options of {adapter}", json.dumps(of)) for adapter, of in results["options"].items() if of),
        ("signature", results["signature"]),
    ]
    return [(name, value) for name, value in lines if value]
