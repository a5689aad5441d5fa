"""The summary of landmarks as a table: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewshot.evaluation.table import WIDE, headline, markdown, mean, notices

if TYPE_CHECKING:
    from rich.console import Console

ALL = "all landmarks"
"""How tables call the mean over the landmarks."""

HEADERS = (
    "landmark",
    "method",
    "cases",
    "< 10 px [95 %]",
    "≤ 2 mm",
    "≤ 4 mm",
    "≤ 10 mm",
    "error, mm",
    "error, px",
    "found",
    "false",
    "kept",
    "time, s",
)

FEW = 12
"""Up to so many landmarks the terminal shows each."""

LEGEND = (
    "error: mean radial error of those that were found; false: found where they are absent; kept: within 10 px, of "
    "those that a cropped volume still holds"
)


def table_lines(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The summary as text, one line per landmark and method under `HEADERS`, all landmarks first."""
    names: dict[str, dict[str, Any]] = {}
    if len({name for of in results["summary"].values() for name in of}) > 1:
        names[ALL] = dict(results["overall"])
    for method, of in results["summary"].items():
        for name, values in of.items():
            names.setdefault(name, {})[method] = values
    return [
        (name, method, *score_cells(values)) for name, of in names.items() for method, values in of.items()
    ]


def score_cells(values: Mapping[str, Any]) -> tuple[str, ...]:
    """A summary's values as text, under the last of `HEADERS`."""
    return (
        str(values["cases"]),
        share(values, "hit_10px", with_interval=True),
        *(share(values, f"success_{limit}mm") for limit in (2, 4, 10)),
        mean(values, "error_mm", 2),
        mean(values, "error_px", 1),
        share(values, "found"),
        false_detections(values),
        share(values, "crops_hit_10px"),
        mean(values, "seconds", 2),
    )


def share(values: Mapping[str, Any], key: str, *, with_interval: bool = False) -> str:
    """Mean of a summary's value in percent, and its 95 % interval if asked; "–" where it has no value."""
    value, ends = values[f"{key}_mean"], values[f"{key}_ci"] if with_interval else None
    if value is None:
        return "–"
    return f"{value:.0%}" + (f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]" if ends else "")


def false_detections(values: Mapping[str, Any]) -> str:
    """How many, and of how many that are absent; "–" where none is."""
    return f"{values['false_detections']}/{values['absent']}" if values["absent"] else "–"


def summary_table(results: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, as docs/results.md shows it."""
    return markdown(HEADERS, table_lines(results), texts=2)


def print_summary(results: Mapping[str, Any], console: Console) -> None:
    """Print the summary, the landmarks that could not be tested and what failed; 110 columns are enough."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console.print(escape(headline(results)))
    lines = table_lines(results)
    count = len({name for name, *_ in lines} - {ALL})
    if count > FEW:
        lines = [line for line in lines if line[0] == ALL]
    empty = {of for of in range(2, len(HEADERS)) if all(line[of] == "–" for line in lines)}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", overflow="fold", min_width=max(map(len, results["summary"])) + 2)
    # where there is no terminal, nothing has to be narrow
    console = console if console.is_terminal else Console(file=console.file, width=max(console.width, WIDE))
    for number, header in enumerate(HEADERS):
        if number > 1 and number not in empty:
            text = header.replace(", ", "\n") if "," in header else header.replace(" [", "\n[")
            table.add_column(text, justify="right", vertical="bottom", no_wrap=True)
    last = None
    for name, method, *cells in lines:
        shown = [escape(cell) for number, cell in enumerate(cells, start=2) if number not in empty]
        if len(results["summary"]) == 1:
            table.add_row(escape(name), *shown)
            continue
        if name != last:
            table.add_row(f"[bold]{escape(name)}")
        table.add_row(f"  {escape(method)}", *shown)
        last = name
    console.print(table)
    console.print(LEGEND, style="dim")
    if count > FEW:
        console.print(f"The {count} landmarks one by one: in the report.", style="dim")
    for notice in notices(results):
        console.print(escape(notice), style="yellow")
