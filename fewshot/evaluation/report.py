"""The results of an evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fewshot.dataset import Dataset
from fewshot.evaluation import report_methods, report_tables
from fewshot.evaluation.charts import Mark, box_plot, interval_plot, scatter_plot
from fewshot.evaluation.crops import STRIDE
from fewshot.evaluation.prompting import compare
from fewshot.evaluation.report_confusion import heat_map
from fewshot.evaluation.report_methods import Method, Results
from fewshot.evaluation.report_pictures import dice_by_label, label_order, make_pictures
from fewshot.evaluation.store import write_text
from fewshot.evaluation.table import ALL, notices
from fewshot.volumes import SliceSpec

FEW_LABELS = 12
"""Up to so many labels the box plots are unfolded."""

ELSEWHERE = ("spec", "labels", "landmarks", "templates", "shots", "version")
"""Settings that the page names in other places."""


def write_report(folder: Path | str, dataset: Dataset) -> Path:
    """Write `report.html` beside `results.json`, with pictures, style and charts inside the one file.

    Args:
        folder: the output folder of `evaluate`.
        dataset: whose images and label maps the pictures show.

    Raises:
        FewshotError: an image, label map or prediction can no longer be read.

    Returns:
        The path of the report.
    """
    folder = Path(folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    write_text(folder / "report.html", rendered("report.html", _content(folder, dataset, results)))
    return folder / "report.html"


def rendered(page: str, content: Mapping[str, Any]) -> str:
    """A page of this folder with its content, as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # where a long name may break: behind what joins its words
    environment.filters["parts"] = lambda name: re.findall(r"[^_+./ -]*[_+./ -]?", name)[:-1]
    return environment.get_template(page).render(**content)


def _content(folder: Path, dataset: Dataset, results: Results) -> dict[str, Any]:
    """What the template shows, in its order."""
    methods = report_methods.methods(results)
    labels = list(dict.fromkeys(label for method in methods for label in method.labels))
    lead = dice_by_label(results, methods[0].name) if methods else {}
    headers, overall = report_tables.overall_table(methods)
    _, unfolded = label_order(lead)
    return {
        "results": results,
        "facts": facts(results, "labels", len(labels)),
        "outcome": report_methods.outcome(methods),
        "notices": notices(results),
        "methods": methods,
        "labels": labels,
        "headers": headers,
        "overall": overall,
        "intervals": _intervals(methods),
        "scatter": _scatter(methods),
        "boxes": _boxes(results, methods, labels),
        "few_labels": len(labels) <= FEW_LABELS,
        "label_rows": report_tables.label_table(methods, labels),
        "prompting": _prompting(results, methods),
        "pictures": make_pictures(folder, dataset, results, [of.name for of in methods], lead),
        "labels_with_pictures": len(lead),
        "unfolded": unfolded,
        "stride": STRIDE,
        "heat_maps": [
            (number, heat_map(results["confusion"][of.name]))
            for number, of in enumerate(methods)
            if results["confusion"].get(of.name)
        ],
        "expected": report_tables.expected_table(results, methods),
        "settings": settings_of(results),
    }


def facts(results: Results, kind: str, count: int) -> list[tuple[str, str]]:
    """What was measured, as the head of the page lists it."""
    runs, seeds = results["runs"], results["seeds"]
    templates = [f"seed {run['seed']}: {', '.join(run['templates'])}" for run in runs]
    return [
        ("templates", f"{results['shots']} per seed" if len(seeds) > 1 else str(results["shots"])),
        ("cases", str(len({row["case"] for row in results["rows"]}))),
        (kind, str(count)),
        ("seeds", ", ".join(map(str, seeds))),
        ("backbone", results["backbone"]),
        ("template cases", "; ".join(templates) if len(runs) > 1 else ", ".join(results["templates"])),
    ]


def mark_of(method: Method) -> Mark:
    """How charts draw a method."""
    return Mark(method.name, method.colour, method.baseline)


def _intervals(methods: Iterable[Method]) -> Markup | None:
    values = [(mark_of(of), of.dice, of.interval) for of in methods if of.dice is not None]
    return Markup(interval_plot(values, title="Mean Dice and its interval per method")) if values else None  # noqa: S704


def _scatter(methods: Iterable[Method]) -> Markup | None:
    points = [(mark_of(of), of.total, of.dice) for of in methods if of.dice is not None and of.total]
    if not points:
        return None
    chart = scatter_plot(
        points, title="Mean Dice against seconds", across="seconds per new study", up="mean Dice"
    )
    return Markup(chart)  # noqa: S704


def _boxes(results: Results, methods: Sequence[Method], labels: Sequence[str]) -> list[tuple[str, Markup]]:
    """Name and chart of each label that has a value; all labels together come first where there are several."""
    dice, studies = report_methods.case_dice(results["rows"]), report_methods.study_dice(results["rows"])
    groups = [(label, {name: of.get(label, {}) for name, of in dice.items()}) for label in labels]
    groups = [(label, of) for label, of in groups if any(of.values())]
    if len(groups) > 1:
        groups.insert(0, (ALL, studies))
    return [
        (
            label,
            Markup(  # noqa: S704
                box_plot(
                    [(mark_of(of), cases.get(of.name, {})) for of in methods], title=f"Dice per case, {label}"
                )
            ),
        )
        for label, cases in groups
    ]


def _prompting(
    results: Results, methods: Sequence[Method]
) -> list[tuple[str, Markup | None, list[tuple[Mark, list[report_tables.Cell]]]]]:
    """Adapters and baselines that were refined by SAM, each with chart and table of its refinements."""
    known = {of.name: of for of in methods}
    shown = []
    for adapter, outcomes in compare(results).items():
        marks = [Mark(of.refine, known[of.method].colour, known[of.method].baseline) for of in outcomes]
        values = [
            (mark, of.values["iou_mean"], report_methods.interval(of.values, "iou"))
            for mark, of in zip(marks, outcomes, strict=True)
            if of.values["iou_mean"] is not None
        ]
        title = f"Mean IoU and its interval per refinement of {adapter}"
        chart = Markup(interval_plot(values, title=title)) if values else None  # noqa: S704
        rows = zip(marks, report_tables.prompts_table(outcomes), strict=True)
        shown.append((adapter, chart, [(mark, cells) for mark, (_, cells) in rows]))
    return shown


def settings_of(results: Results) -> list[tuple[str, str]]:
    """What the report lists below the command: what all rows depend on, and with which packages they were made."""
    shown = {key: of for key, of in results["settings"].items() if key not in ELSEWHERE}
    specs = [of["spec"] for of in results["models"] if of.get("spec")] or [results["settings"]["spec"]]
    known = SliceSpec.from_dict(specs[0]).to_dict()
    lines = [
        ("slices", ", ".join(f"{key} {_text(value)}" for key, value in known.items() if value is not None)),
        *((key, _text(value)) for key, value in shown.items()),
        *(
            (f"options of {name}", json.dumps(of, ensure_ascii=False))
            for name, of in results["options"].items()
            if of
        ),
        *((f"refinement {name}", _text(of)) for name, of in results.get("refiners", {}).items()),
        *_template_slices(results),
        *((of["adapter"], _text(of["provenance"])) for of in _once(results["models"]) if of["provenance"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in results["versions"].items())),
        ("created", results["created"]),
        ("signature", results["signature"]),
    ]
    return [(name, value) for name, value in lines if value]


def _template_slices(results: Results) -> Iterable[tuple[str, str]]:
    for run in results["runs"]:
        if run.get("template_slices"):
            slices = (f"{case}: {', '.join(map(str, of))}" for case, of in run["template_slices"].items())
            yield f"template slices, seed {run['seed']}", "; ".join(slices)


def _once(models: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Each adapter's first model."""
    return {of["adapter"]: of for of in reversed([*models])}.values()


def _text(value: Any) -> str:
    """A setting as people write it; empty where it says nothing."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
