"""One Markdown table of landmark evaluations: `python -m benchmarks.landmark_methods RESULTS...`.

RESULTS are folders of `fewshot evaluate --landmarks`: one line for each method of each, the least error first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.evaluation.landmarks.table import false_detections, share
from fewshot.evaluation.table import mean

HEADERS = (
    "data set",
    "templates",
    "cases",
    "method",
    "< 10 px [95 %]",
    "≤ 2 mm",
    "≤ 4 mm",
    "≤ 10 mm",
    "error, mm",
    "median, mm",
    "error, px",
    "found",
    "false",
    "kept",
    "fit, s",
    "new study, s",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    print("|", " | ".join(HEADERS), "|")
    print("|", " | ".join(["---"] * 4 + ["---:"] * (len(HEADERS) - 4)), "|")
    for folder in parser.parse_args().results:
        for line in lines(json.loads((folder / "results.json").read_text(encoding="utf-8"))):
            print("|", " | ".join(line), "|")


def lines(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line per method; the data set is named once."""
    ranked = sorted(results["overall"].items(), key=lambda item: _last_if_none(item[1]["error_px_mean"]))
    for number, (method, of) in enumerate(ranked):
        about = (results["dataset"], str(results["shots"]), str(of["cases"]))
        median = of["error_mm_median"]
        yield (
            *(about if not number else ("", "", "")),
            method,
            share(of, "hit_10px", with_interval=True),
            *(share(of, f"success_{limit}mm") for limit in (2, 4, 10)),
            mean(of, "error_mm", 2),
            "–" if median is None else f"{median:.2f}",
            mean(of, "error_px", 1),
            share(of, "found"),
            false_detections(of),
            share(of, "crops_hit_10px"),
            _seconds([model["seconds"] for model in results["models"] if model["adapter"] == method]),
            _seconds([timing["total"] for timing in results["timings"] if timing["adapter"] == method]),
        )


def _last_if_none(value: float | None) -> float:
    return np.inf if value is None else value


def _seconds(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "–"


if __name__ == "__main__":
    main()
