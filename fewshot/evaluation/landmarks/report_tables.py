"""The tables of the landmarks' report: all together, in cropped volumes, landmark by landmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fewshot.evaluation.landmarks.metrics import SUCCESS_MM
from fewshot.evaluation.report_methods import Method, interval
from fewshot.evaluation.report_tables import Cell, Column, column_cells, seconds

Table = tuple[list[str], list[tuple[Method, list[Cell]]]]
"""Headers, and one row of cells per method."""


def overall_table(methods: Sequence[Method]) -> Table:
    """All landmarks together; columns without any number are left out."""
    return _table(
        methods,
        [
            Column("< 10 px", _mean("hit_10px"), percent, _interval("hit_10px", percent), _more),
            *(
                Column(f"≤ {limit} mm", _mean(f"success_{limit}mm"), percent, rank=_more)
                for limit in SUCCESS_MM
            ),
            Column("found", _mean("found"), percent, rank=_more),
            Column("error, mm", _mean("error_mm"), two, _interval("error_mm", two), needs_found=True),
            Column("median, mm", _value("error_mm_median"), two, needs_found=True),
            Column("error, px", _mean("error_px"), one, needs_found=True),
            Column("first guess, mm", _mean("guess_mm"), two),
            Column("s per study", lambda method: method.total, seconds),
            Column("s to fit", lambda method: method.fit, seconds),
        ],
    )


def crops_table(methods: Sequence[Method]) -> Table:
    """What was found where it is absent, and what was still found beside the cut."""

    def false(method: Method) -> float | None:
        absent = method.values.get("absent")
        return method.values["false_detections"] / absent if absent else None

    def counted(method: Method) -> str:
        return f"{method.values['false_detections']}/{method.values['absent']}"

    return _table(
        methods,
        [
            Column("false detections", false, percent, counted),
            Column("kept: found", _mean("crops_found"), percent, rank=_more),
            Column("kept: < 10 px", _mean("crops_hit_10px"), percent, rank=_more),
            Column("kept: error, mm", _mean("crops_error_mm"), two, needs_found=True),
        ],
    )


def landmark_table(methods: Sequence[Method], names: Sequence[str]) -> list[tuple[str, str, list[Cell]]]:
    """Landmark, in how many cases it is, and how often each method finds it within ten pixels."""
    table = []
    for name in names:
        held = max((of.labels[name]["cases"] for of in methods if name in of.labels), default=0)
        table.append((name, str(held), column_cells(_of_landmark(name), methods)))
    return table


def percent(value: float) -> str:
    """Whole percent."""
    return f"{value:.0%}"


def one(value: float) -> str:
    """One decimal."""
    return f"{value:.1f}"


def two(value: float) -> str:
    """Two decimals; fewer where the distance is large."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def _table(methods: Sequence[Method], columns: Sequence[Column]) -> Table:
    shown = [of for of in columns if any(of.value(method) is not None for method in methods)]
    cells = [column_cells(column, methods) for column in shown]
    rows = [(method, [of[number] for of in cells]) for number, method in enumerate(methods)]
    return [column.header for column in shown], rows if shown else []


def _value(key: str) -> Callable[[Method], float | None]:
    return lambda method: method.values.get(key)


def _mean(key: str) -> Callable[[Method], float | None]:
    return _value(f"{key}_mean")


def _interval(key: str, text: Callable[[float], str]) -> Callable[[Method], str]:
    def small(method: Method) -> str:
        ends = interval(method.values, key)
        return f"[{text(ends[0])}, {text(ends[1])}]" if ends else ""

    return small


def _more(value: float) -> float:
    return value


def _of_landmark(name: str) -> Column:
    def value(method: Method) -> float | None:
        return method.labels.get(name, {}).get("hit_10px_mean")

    def small(method: Method) -> str:
        of = method.labels.get(name, {})
        mm, px, found = (of.get(f"{key}_mean") for key in ("error_mm", "error_px", "found"))
        error = f"{two(mm)} mm" if mm is not None else f"{one(px)} px" if px is not None else ""
        missed = f"{1 - found:.0%} missed" if found is not None and found < 1 else ""
        return ", ".join(filter(None, (error, missed)))

    return Column(name, value, percent, small, _more)
