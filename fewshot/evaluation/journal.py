"""Lines that continue a results.json: what came in since it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

LISTS = ("rows", "timings", "confusions")
"""Lists of results.json with entries of single units."""


def merge(old: Record, journal: str) -> None:
    """Add the lines of a journal to the results that it continues."""
    models = {(of["seed"], of["adapter"]): of for of in old["models"]}
    runs = {run["seed"]: run for run in old["runs"]}
    for line in journal.split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            break  # empty, or the process was killed while it wrote this line
        for key in LISTS:
            old[key] += entry.get(key, [])
        models |= {(of["seed"], of["adapter"]): of for of in entry.get("models", [])}
        runs |= {run["seed"]: run for run in entry.get("runs", [])}
        old["digests"] |= entry.get("digests", {})
        old["notes"] = old.get("notes", {}) | entry.get("notes", {})
    old |= {"models": list(models.values()), "runs": list(runs.values())}


def concluded(old: Record, condensed: Callable[[list[Record]], Record]) -> Record:
    """Results that nothing will be added to any more; rows that the journal may have added are condensed."""
    return old | condensed(old["rows"]) | {"journal": None} if old.get("journal") else old
