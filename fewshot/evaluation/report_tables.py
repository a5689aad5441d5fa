"""The report's tables: all labels together, label by label, expected against reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fewshot.evaluation.prompting import Outcome
from fewshot.evaluation.report_methods import Method, Results, by_method, interval_text
from fewshot.evaluation.table import change, taken

NEAR = 0.05
"""A distance is marked as best only if its method finds nearly as many labels as the one that finds most."""


@dataclass(frozen=True)
class Cell:
    """A number in a table: text, a smaller second line, exact values to hover over, and whether it is the best."""

    text: str = "–"
    small: str = ""
    title: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the overall table: where its value comes from, how it reads, which one is best."""

    header: str
    value: Callable[[Method], float | None]
    text: Callable[[float], str]
    small: Callable[[Method], str] = lambda _: ""
    rank: Callable[[float], float] = lambda value: -value
    needs_found: bool = False


def overall_table(methods: Sequence[Method]) -> tuple[list[str], list[tuple[Method, list[Cell]]]]:
    """Headers, and one row of cells per method."""
    columns = _columns()
    cells = [column_cells(column, methods) for column in columns]
    rows = [(method, [of[number] for of in cells]) for number, method in enumerate(methods)]
    return [column.header for column in columns], rows


def label_table(methods: Sequence[Method], labels: Sequence[str]) -> list[tuple[str, str, list[Cell]]]:
    """Label, how many cases hold it, and its mean Dice per method."""
    table = []
    for label in labels:
        held = max((of.labels[label]["cases_with_label"] for of in methods if label in of.labels), default=0)
        table.append((label, str(held), column_cells(_label_column(label), methods)))
    return table


def expected_table(results: Results, methods: Sequence[Method]) -> list[tuple[str, str, str, str]]:
    """Method, the Dice that cross-validation on the templates promised, the Dice reached, the difference."""
    promised = by_method((of["adapter"], of["scores"].get("expected_dice")) for of in results["models"])
    return [
        (method.name, two(hoped), two(method.dice), f"{method.dice - hoped:+.2f}".replace("-", "−"))
        for method in methods
        if (hoped := promised.get(method.name.partition("+")[0])) is not None and method.dice is not None
    ]


def prompts_table(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Cell]]]:
    """Refinement, and its cells: IoU, difference to the unrefined prediction, Dice, masks taken."""
    best = {
        key: max(
            (two(value) for of in outcomes if (value := of.values[f"{key}_mean"]) is not None), default=""
        )
        for key in ("iou", "dice")
    }
    worst = {
        key: min(
            (two(value) for of in outcomes if (value := of.values[f"{key}_mean"]) is not None), default=""
        )
        for key in ("iou", "dice")
    }

    def score(of: Outcome, key: str) -> Cell:
        value = of.values[f"{key}_mean"]
        if value is None:
            return Cell()
        text, title = two(value), f"{of.refine}: {value:.4f}"
        return Cell(text, interval_text(of.values, key), title, best=text == best[key] != worst[key])

    def gain(of: Outcome) -> Cell:
        value, _, ends = change(of.gain, of.gain_ci).partition(" ")
        return Cell(value, ends)

    return [
        (of.refine, [score(of, "iou"), gain(of), score(of, "dice"), Cell(taken(of.masks))]) for of in outcomes
    ]


def two(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def seconds(value: float) -> str:
    """Seconds to two figures or whole seconds."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _columns() -> list[Column]:
    def mean(key: str) -> Callable[[Method], float | None]:
        return lambda method: method.values.get(f"{key}_mean")

    def slices(method: Method) -> float | None:
        without = method.values.get("slices_without_label")
        return method.values["false_positive_slices"] / without if without else None

    def counted(method: Method) -> str:
        return f"{method.values['false_positive_slices']}/{method.values['slices_without_label']}"

    def percent(value: float) -> str:
        return f"{value:.0%}"

    def permille(value: float) -> str:
        return f"{value:.1%}"

    def one(value: float) -> str:
        return f"{value:.1f}"

    def signed(value: float) -> str:
        return f"{value:+.0%}".replace("-", "−")

    return [
        Column("Dice", mean("dice"), two, lambda method: interval_text(method.values), lambda value: value),
        Column("IoU", mean("iou"), two, rank=lambda value: value),
        Column("found", lambda method: method.found, percent, rank=lambda value: value),
        Column("HD95, mm", mean("hd95_mm"), one, needs_found=True),
        Column("surface, mm", mean("surface_mm"), one, needs_found=True),
        Column("< 10 px", mean("hit_10px"), percent, rank=lambda value: value),
        Column("false slices", slices, permille, counted),
        Column(
            "volume error", mean("volume_error"), signed, rank=lambda value: -abs(value), needs_found=True
        ),
        Column("ECE", mean("ece"), lambda value: f"{value:.3f}"),
        Column("s per study", lambda method: method.total, seconds),
        Column("s to fit", lambda method: method.fit, seconds),
    ]


def _label_column(label: str) -> Column:
    def value(method: Method) -> float | None:
        return method.labels.get(label, {}).get("dice_mean")

    def small(method: Method) -> str:
        return interval_text(method.labels.get(label, {}))

    return Column(label, value, two, small, rank=lambda dice: dice)


def column_cells(column: Column, methods: Sequence[Method]) -> list[Cell]:
    """A column: the cell of every method, the best one marked."""
    values = [column.value(method) for method in methods]
    least = (
        max((method.found or 0.0 for method in methods), default=0.0) - NEAR if column.needs_found else 0.0
    )
    fair = [
        number
        for number, (value, method) in enumerate(zip(values, methods, strict=True))
        if value is not None and (method.found or 0.0) >= least
    ]
    texts = ["–" if value is None else column.text(value) for value in values]
    # where all read alike, none is better: also where there is but one
    differ = len({texts[number] for number in fair}) > 1
    best = max(fair, key=lambda number: column.rank(values[number] or 0.0)) if differ else None
    return [
        Cell()
        if value is None
        else Cell(
            text=texts[number],
            small=column.small(methods[number]),
            title=f"{methods[number].name}: {value:.4f}",
            # equal as shown is equal: the third decimal decides nothing
            best=best is not None and number in fair and texts[number] == texts[best],
        )
        for number, value in enumerate(values)
    ]
