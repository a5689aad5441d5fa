"""What the demo found out about landmarks, as a table and as a part of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class LandmarkRow:
    """One landmark of one study.

    Attributes:
        found: False where the server says that it is not in the image, or does not know it.
        confidence: 0 to 1, as the server says.
        error_mm: distance from its true place, None where it was not found.
        seconds: until the answer was there, for all landmarks of the study together.
    """

    case: str
    landmark: str
    found: bool
    confidence: float
    error_mm: float | None
    seconds: float


def mean_error(rows: Sequence[LandmarkRow], *, landmark: str | None = None) -> float | None:
    """Mean error over the studies (and landmarks), mm; None where nothing was found."""
    errors = [row.error_mm for row in rows if row.error_mm is not None and landmark in (None, row.landmark)]
    return fmean(errors) if errors else None


def counts(rows: Sequence[LandmarkRow], *, landmark: str | None = None) -> tuple[int, int]:
    """How often it was found, and in how many studies it is."""
    chosen = [row for row in rows if landmark in (None, row.landmark)]
    return sum(row.found for row in chosen), len(chosen)


def mean_seconds(rows: Sequence[LandmarkRow]) -> float | None:
    """Mean seconds per study."""
    per_case = {row.case: row.seconds for row in rows}
    return fmean(per_case.values()) if per_case else None


def landmark_table(rows: Sequence[LandmarkRow]) -> Table:
    """Error and count per landmark (one line each), with the mean and the seconds below."""
    table = Table()
    table.add_column("landmark")
    table.add_column("error, mm", justify="right")
    table.add_column("found", justify="right")
    for landmark in dict.fromkeys(row.landmark for row in rows):
        table.add_row(landmark, _number(mean_error(rows, landmark=landmark)), _share(rows, landmark))
    table.add_section()
    table.add_row("mean", _number(mean_error(rows)), _share(rows), style="bold")
    table.add_row("seconds per study", _number(mean_seconds(rows)), "")
    return table


def landmark_results(rows: Sequence[LandmarkRow]) -> dict[str, Any]:
    """The same numbers for a program: a row per study and landmark, and a summary per landmark."""
    summary: dict[str, dict[str, Any]] = {
        landmark: _summary(rows, landmark) for landmark in dict.fromkeys(row.landmark for row in rows)
    }
    summary["mean"] = {**_summary(rows), "seconds": mean_seconds(rows)}
    return {
        "rows": [asdict(row) | {"seconds": round(row.seconds, 3)} for row in rows],
        "summary": summary,
    }


def _summary(rows: Sequence[LandmarkRow], landmark: str | None = None) -> dict[str, Any]:
    found, there = counts(rows, landmark=landmark)
    return {"error_mm": mean_error(rows, landmark=landmark), "found": found, "of": there}


def _share(rows: Sequence[LandmarkRow], landmark: str | None = None) -> str:
    found, there = counts(rows, landmark=landmark)
    return f"{found}/{there}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
