"""Run all benchmarks: `python -m benchmarks [--out FILE] [adapters|volumes|server ...]`."""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fewshot.features.device import choose_dtype

GROUPS = ("adapters", "volumes", "landmarks", "refinement", "server")


def main() -> None:
    """Measure, print one table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=[])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latest.json")
    arguments = parser.parse_args()
    rows = [row for name in arguments.groups or GROUPS for row in import_module(f"benchmarks.{name}").rows()]
    table = Table("what", "plain", "ours", "ratio", "target", "met", title="Speed, in one run")
    for row in rows:
        cells = [row.name, f"{row.plain:.3f}", f"{row.ours:.4f}", f"{row.ratio:.2f}", row.target]
        table.add_row(*cells, "yes" if row.met else "NO")
    Console(width=140).print(table)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bfloat16": choose_dtype(torch.device("cpu")) == torch.bfloat16,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}
    arguments.out.write_text(
        json.dumps({**content, "rows": [row.to_json() for row in rows]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
