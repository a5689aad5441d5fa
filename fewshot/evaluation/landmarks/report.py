"""The results of an evaluation of landmarks as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewshot.dataset import Dataset
from fewshot.evaluation.charts import interval_plot, scatter_plot
from fewshot.evaluation.landmarks import report_tables
from fewshot.evaluation.landmarks.curves import success_curves
from fewshot.evaluation.landmarks.methods import BASELINES
from fewshot.evaluation.landmarks.metrics import SUCCESS_MM
from fewshot.evaluation.landmarks.pictures import make_pictures
from fewshot.evaluation.landmarks.views import WHOLE
from fewshot.evaluation.report import facts, mark_of, rendered, settings_of
from fewshot.evaluation.report_methods import COLOURS, Method, by_method, interval
from fewshot.evaluation.store import write_text
from fewshot.evaluation.table import notices

Results = Mapping[str, Any]

PAGE = "report_landmarks.html"
UNFOLDED = 4
"""So many landmarks, the worst, are shown at once."""


def write_report(folder: Path | str, dataset: Dataset) -> Path:
    """Write `report.html` beside `results.json`, with pictures, style and charts inside the one file.

    Args:
        folder: the output folder of `evaluate_landmarks`.
        dataset: whose images the pictures show.

    Raises:
        FewshotError: an image can no longer be read.

    Returns:
        The path of the report.
    """
    folder = Path(folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    write_text(folder / "report.html", rendered(PAGE, _content(dataset, results)))
    return folder / "report.html"


def methods_of(results: Results) -> list[Method]:
    """All methods, the one that finds most landmarks within 10 pixels first."""
    names = dict.fromkeys([*results["overall"], *(of["adapter"] for of in results["models"])])
    reached = {name: results["overall"].get(name, {}).get("hit_10px_mean") for name in names}
    order = sorted(names, key=lambda name: -1.0 if reached[name] is None else reached[name], reverse=True)
    totals = by_method((of["adapter"], of["total"]) for of in results["timings"] if of["view"] == WHOLE)
    fits = by_method((of["adapter"], of["seconds"]) for of in results["models"])
    return [
        Method(
            name=name,
            colour=COLOURS[number % len(COLOURS)],
            baseline=name in BASELINES,
            values=results["overall"].get(name, {}),
            labels=results["summary"].get(name, {}),
            total=totals.get(name),
            fit=fits.get(name),
            found=results["overall"].get(name, {}).get("found_mean"),
        )
        for number, name in enumerate(order)
    ]


def outcome(methods: Sequence[Method]) -> str:
    """One sentence: who leads, with what, and how far the best alternative comes."""
    if not methods or _hits(methods[0]) is None:
        return "Nothing could be measured: no case holds a landmark that was tested."
    lead = methods[0]
    count = sum(of["landmarks"] > 0 for of in lead.labels.values())
    cases = lead.values["cases"]
    sentence = (
        f"{lead.name} finds {_percent(lead)} of {count} landmark{'s' * (count != 1)} within 10 pixels on {cases} "
        f"unseen case{'s' * (cases != 1)}{_error(lead)}"
    )
    others = [method for method in methods[1:] if _hits(method) is not None]
    other = next((method for method in others if method.baseline != lead.baseline), None)
    if other is not None:
        kind = "baseline" if other.baseline else "adapter"
        return f"{sentence}; the best {kind}, {other.name}, finds {_percent(other)}{_error(other)}."
    if others:
        return f"{sentence}; the next best, {others[0].name}, finds {_percent(others[0])}{_error(others[0])}."
    return sentence + "."


def _hits(method: Method) -> float | None:
    return method.values.get("hit_10px_mean")


def _percent(method: Method) -> str:
    ends = interval(method.values, "hit_10px")
    return f"{_hits(method):.0%}" + (f" [{ends[0]:.0%}, {ends[1]:.0%}]" if ends else "")


def _error(method: Method) -> str:
    for key, unit in (("error_mm", "mm"), ("error_px", "pixels")):
        if (error := method.values.get(f"{key}_mean")) is not None:
            return f", mean radial error {error:.2g} {unit}"
    return ""


def _content(dataset: Dataset, results: Results) -> dict[str, Any]:
    """What the page shows, in its order."""
    methods = methods_of(results)
    names = list(dict.fromkeys(row["landmark"] for row in results["rows"]))
    headers, overall = report_tables.overall_table(methods)
    crop_headers, crops = report_tables.crops_table(methods)
    measured = [of for of in methods if _hits(of) is not None]
    pictures = make_pictures(dataset, results, [of.name for of in methods])
    return {
        "results": results,
        "facts": facts(results, "landmarks", len(names)),
        "outcome": outcome(methods),
        "notices": notices(results),
        "methods": methods,
        "headers": headers,
        "overall": overall,
        "intervals": _intervals(measured),
        "scatter": _scatter(measured),
        "curves": _curves(results, measured),
        "crop_headers": crop_headers,
        "crops": crops,
        "landmark_rows": report_tables.landmark_table(methods, names),
        "pictures": pictures,
        "unfolded": UNFOLDED,
        "settings": settings_of(results),
    }


def _intervals(methods: Sequence[Method]) -> Markup | None:
    values = [(mark_of(of), of.values["hit_10px_mean"], interval(of.values, "hit_10px")) for of in methods]
    title = "Share of landmarks within 10 pixels and its interval per method"
    return Markup(interval_plot(values, title=title)) if values else None  # noqa: S704


def _scatter(methods: Sequence[Method]) -> Markup | None:
    points = [(mark_of(of), of.total, of.values["hit_10px_mean"]) for of in methods if of.total]
    if not points:
        return None
    chart = scatter_plot(
        points,
        title="Share of landmarks within 10 pixels against seconds",
        across="seconds per new study",
        up="within 10 px",
    )
    return Markup(chart)  # noqa: S704


def _curves(results: Results, methods: Sequence[Method]) -> Markup | None:
    rows = [row for row in results["rows"] if row["view"] == WHOLE and row["present"]]
    if not methods or not rows:
        return None
    calibrated = any(row["error_mm"] is not None for row in rows)
    key, unit = ("error_mm", "mm") if calibrated else ("error_px", "pixels")
    values = []
    for method in methods:
        of_method = [row for row in rows if row["adapter"] == method.name]
        errors = [row[key] for row in of_method if row[key] is not None]
        values.append((mark_of(method), errors, len(of_method)))
    limits = SUCCESS_MM if calibrated else (10,)
    chart = success_curves(values, title="Success rate against distance", unit=unit, limits=limits)
    return Markup(chart)  # noqa: S704
