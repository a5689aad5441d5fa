"""The summary of an evaluation as a table: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewshot.evaluation.prompting import compare, remarks

if TYPE_CHECKING:
    from rich.console import Console

ALL = "all labels"
"""How tables call the mean over the labels."""

WIDE = 110
"""Columns of the table in a file."""

FEW = 3
"""Notes on cases that are shown, and cases that are named with each."""

HEADERS = (
    "label",
    "method",
    "cases",
    "Dice [95 %]",
    "IoU",
    "HD95, mm",
    "surface, mm",
    "< 10 px",
    "false slices",
    "ECE",
    "time, s",
)

PROMPT_HEADERS = ("method", "refinement", "IoU [95 %]", "against none [95 %]", "Dice [95 %]", "masks taken")


def table_lines(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The summary as text, one line per label and method under `HEADERS`, all labels first."""
    labels: dict[str, dict[str, Any]] = {}
    if len({label for of in results["summary"].values() for label in of}) > 1:
        labels[ALL] = dict(results["overall"])
    for method, of in results["summary"].items():
        for label, values in of.items():
            labels.setdefault(label, {})[method] = values
    return [
        (label, method, *score_cells(values)) for label, of in labels.items() for method, values in of.items()
    ]


def score_cells(values: Mapping[str, Any]) -> tuple[str, ...]:
    """A summary's values as text, under the last of `HEADERS`."""
    hits = values["hit_10px_mean"]
    return (
        str(values["cases_with_label"]),
        interval(values, "dice", 2),
        mean(values, "iou", 2),
        mean(values, "hd95_mm", 1),
        mean(values, "surface_mm", 1),
        "–" if hits is None else f"{hits:.0%}",
        f"{values['false_positive_slices']}/{values['slices_without_label']}",
        mean(values, "ece", 3),
        mean(values, "seconds", 2),
    )


def mean(values: Mapping[str, Any], key: str, digits: int) -> str:
    """Mean of a summary's value, "–" where it has none."""
    value = values[f"{key}_mean"]
    return "–" if value is None else f"{value:.{digits}f}"


def spread(values: Mapping[str, Any], key: str, digits: int) -> str:
    """Mean ± standard deviation over the cases of a summary's value, "–" where it has none."""
    sd = values[f"{key}_sd"]
    return mean(values, key, digits) + ("" if sd is None else f" ± {sd:.{digits}f}")


def interval(values: Mapping[str, Any], key: str, digits: int) -> str:
    """Mean and 95 % interval of a summary's value, "–" where it has none."""
    ends = values[f"{key}_ci"]
    return mean(values, key, digits) + (
        "" if ends is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    )


def summary_table(results: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, as docs/results.md shows it."""
    return markdown(HEADERS, table_lines(results), texts=2)


def prompts_table(results: Mapping[str, Any]) -> str:
    """Refinements of the same predictions as a Markdown table, after the paper's figure 12; empty without SAM."""
    lines = [
        (
            method,
            of.refine,
            interval(of.values, "iou", 2),
            change(of.gain, of.gain_ci),
            interval(of.values, "dice", 2),
            taken(of.masks),
        )
        for method, outcomes in compare(results).items()
        for of in outcomes
    ]
    return markdown(PROMPT_HEADERS, lines, texts=2) if lines else ""


def change(value: float | None, ends: Sequence[float] | None) -> str:
    """A difference and its interval with signs, "–" where there is none."""
    if value is None:
        return "–"
    shown = f"{value:+.2f}" + (f" [{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")
    return shown.replace("-", "−")


def taken(masks: tuple[int, int] | None) -> str:
    """The share of the masks that were taken, "–" where none were made."""
    return f"{masks[1] / masks[0]:.0%}" if masks and masks[0] else "–"


def markdown(headers: Sequence[str], lines: Iterable[Sequence[str]], *, texts: int) -> str:
    """A table of which the first columns are texts and the others numbers."""
    rule = ("---",) * texts + ("---:",) * (len(headers) - texts)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (headers, rule, *lines)
    )


def print_summary(results: Mapping[str, Any], console: Console) -> None:
    """Print the summary, the labels that could not be tested and what failed; 100 columns are enough."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console.print(escape(headline(results)))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", overflow="fold", min_width=max(map(len, results["summary"])) + 2)
    # where there is no terminal, nothing has to be narrow
    console = console if console.is_terminal else Console(file=console.file, width=max(console.width, WIDE))
    for header in HEADERS[2:]:
        first, _, rest = header.rpartition(" ") if header not in ("< 10 px", HEADERS[3]) else (header, "", "")
        table.add_column(
            "\n".join(filter(None, (first, rest))), justify="right", vertical="bottom", no_wrap=True
        )
    last = None
    for label, method, *cells in table_lines(results):
        if len(results["summary"]) == 1:
            table.add_row(escape(label), *map(escape, cells))
            continue
        if label != last:
            table.add_row(f"[bold]{escape(label)}")
        table.add_row(f"  {escape(method)}", *map(escape, cells))
        last = label
    console.print(table)
    for notice in notices(results):
        console.print(escape(notice), style="yellow")


def notices(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers must know: untested names, notes on methods and cases, what failed."""
    runs, models = results.get("runs") or [], results.get("models") or []
    lacking: dict[str, list[int]] = {}
    for run in runs:
        for label in run["labels_without_template"]:
            lacking.setdefault(label, []).append(run["seed"])
    never = [label for label, seeds in lacking.items() if len(seeds) == len(runs)]
    found = [f"Not in any template, so not tested: {', '.join(never)}."] if never else []
    found += [
        f"Not in the templates of seed {', '.join(map(str, seeds))}, so not tested there: {label}."
        for label, seeds in lacking.items()
        if label not in never
    ]
    notes = dict.fromkeys((of["adapter"], of["note"]) for of in models if of.get("note"))
    found += [f"{method}: {note}" for method, note in notes]
    found += remarks(results)
    found += _notes_on_cases(results.get("notes") or {})
    return found + [f"{name} failed: {reason}" for name, reason in (results.get("failed") or {}).items()]


def _notes_on_cases(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """What reading the cases had to decide, each note once with the cases that it is about; the first few notes."""
    cases: dict[str, list[str]] = {}
    for case, of in notes.items():
        for note in of:
            cases.setdefault(note, []).append(case)
    lines = []
    for note, of in list(cases.items())[:FEW]:
        others = f" and {len(of) - FEW} others" if len(of) > FEW else ""
        lines.append(f"{', '.join(of[:FEW])}{others}: {note}.")
    if len(cases) > FEW:
        lines.append(f"{len(cases) - FEW} more notes on cases are in results.json.")
    return lines


def headline(results: Mapping[str, Any]) -> str:
    """What was measured, in one line."""
    several = len(results["seeds"]) > 1
    shots = f"{results['shots']} template{'s' * (results['shots'] != 1)}{' per seed' * several}"
    parts = [
        f"{shots} ({', '.join(results['templates'])})",
        *([f"seeds {', '.join(map(str, results['seeds']))}"] if several else []),
        f"backbone {results['backbone']}",
        ", ".join(results["summary"]),
    ]
    return f"{results['dataset']}: {', '.join(parts)}"
