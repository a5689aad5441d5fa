"""Refinements side by side, as Markdown: `python -m benchmarks.prompts RESULTS...` (folders of `fewshot evaluate`).

One line per way to refine, one column per folder: mean IoU over the cases, as in the paper's Fig. 12.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one table for each adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    found = [
        json.loads((folder / "results.json").read_text(encoding="utf-8"))
        for folder in parser.parse_args().results
    ]
    for adapter in dict.fromkeys(row["adapter"] for results in found for row in results["rows"]):
        print("|", " | ".join([adapter, *(results["dataset"] for results in found)]), "|")
        print("|", " | ".join(["---", *["---:"] * len(found)]), "|")
        for refine in dict.fromkeys(row["refine"] for results in found for row in results["rows"]):
            cells = [_cell(results, adapter, refine) for results in found]
            print("|", " | ".join([refine, *cells]), "|")
        print()


def _cell(results: dict[str, Any], adapter: str, refine: str) -> str:
    """Mean IoU, and of SAM the share of its masks that were taken."""
    method = adapter if refine == "none" else f"{adapter}+{refine}"
    if method not in results["overall"]:
        return "–"
    told = [
        timing["refinement"]
        for timing in results["timings"]
        if timing["adapter"] == adapter and timing["refine"] == refine and timing["refinement"]
    ]
    masks = sum(each.get("masks", 0) for each in told)
    taken = f" ({sum(each['taken'] for each in told) / masks:.0%})" if masks else ""
    return f"{results['overall'][method]['iou_mean']:.2f}{taken}"


if __name__ == "__main__":
    main()
