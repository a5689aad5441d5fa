"""A run that stops goes on where it stopped, and nobody can tell afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot.evaluation import methods, metrics, summary_table
from fewshot.features import FeatureBank
from fewshot.model import load_model
from tests.unit.evaluation.fakes import Copy
from tests.unit.evaluation.shapes import LABELS
from tests.unit.evaluation.test_protocol import scores

WHOLE: dict[str, Any] = {
    "adapters": ["basic", "classification"], "baselines": ["copy"], "templates": None, "seeds": (0, 3),
}  # fmt: skip

KILLED = """
import json, os, signal, sys
from pathlib import Path

from fewshot import baselines
from fewshot.evaluation import evaluate, metrics
from fewshot.evaluation.store import ResultStore
from fewshot.features import FeatureBank, load_backbone
from tests.unit.evaluation import fakes

baselines.BASELINES.update(fakes.BASELINES)
folder, out, bank, arguments, after = sys.argv[1:]
added = ResultStore.add
left = int(after)

def add(*given, **named):
    global left
    added(*given, **named)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

ResultStore.add = add
metrics.surface_distances = lambda *_, **__: (2.0, 1.0)
evaluate(
    folder, backbone=load_backbone("random-tiny", device="cpu"), bank=FeatureBank(bank), out=out,
    **json.loads(arguments),
)
"""


def table(results: dict[str, Any]) -> str:
    """What is printed, without the seconds."""
    return "\n".join(line.rsplit("|", 2)[0] for line in summary_table(results).splitlines())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is fitted and predicted from here on."""
    done: list[str] = []

    def watched(kind: type, verb: str) -> Any:
        original = getattr(kind, verb)

        def call(self: Any, *given: Any, **named: Any) -> Any:
            done.append(f"{verb} {self.name}")
            return original(self, *given, **named)

        return call

    for kind in (methods.AdapterMethod, methods.BaselineMethod):
        for verb in ("fit", "predict"):
            monkeypatch.setattr(kind, verb, watched(kind, verb))
    return done


def test_a_second_run_computes_nothing(
    run: Any, made_up: type[Copy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the same command in another folder gives the same table."""
    first = run(**WHOLE)
    done = counted(monkeypatch)
    second = run(**WHOLE)
    assert done == []
    assert second["rows"] == first["rows"]
    assert second["models"] == first["models"]
    assert second["timings"] == first["timings"]
    elsewhere = run(**WHOLE, out=tmp_path / "elsewhere", bank=FeatureBank(tmp_path / "another bank"))
    assert scores(elsewhere) == scores(first)
    assert table(elsewhere) == table(first)
    assert elsewhere["confusion"] == first["confusion"]


def test_a_killed_process_loses_nothing_that_was_done(
    run: Any,
    made_up: type[Copy],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    bank: FeatureBank,
    tmp_path: Path,
) -> None:
    """Killed after 14 of 24 predictions: in the second seed, between the methods of one case.

    Surfaces are not measured, here and in that process: to import what measures them takes longer than all else.
    """
    monkeypatch.setattr(metrics, "surface_distances", lambda *_, **__: (2.0, 1.0))
    whole = run(**WHOLE, out=tmp_path / "whole")
    arguments = WHOLE | {"options": {"classification": {"epochs": 2}}}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, folder, tmp_path / "out", bank.folder, json.dumps(arguments), "14"],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    done = counted(monkeypatch)
    resumed = run(**WHOLE)
    predicted = [what for what in done if what.startswith("predict")]
    assert len(predicted) == 24 - 14
    assert [what for what in done if what.startswith("fit")] == ["fit copy"], "adapters are in their files"
    assert scores(resumed) == scores(whole)
    assert table(resumed) == table(whole)
    assert resumed["confusion"] == whole["confusion"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_who_stops_a_run_finds_everything_so_far(
    run: Any, tmp_path: Path, stop: type[BaseException], made_up: type[Copy]
) -> None:
    """Whatever the caller's progress raises is no failure of a case."""

    def progress(stage: str, done: float, total: int, **_: float) -> None:
        if (stage, done) == ("predict", 3):
            raise stop("enough")

    with pytest.raises(stop, match="enough"):
        run(baselines=["copy"], progress=progress)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["rows"]) == 3 * len(LABELS)
    assert results["failed"] == {}
    assert results["summary"]["basic"]["disc"]["cases"] == 2


@pytest.mark.parametrize("damage", ["another model", "no model"])
def test_a_model_file_that_is_not_the_runs_own_is_not_used(run: Any, tmp_path: Path, damage: str) -> None:
    run(max_cases=1)
    path = tmp_path / "out" / "seed-0" / "models" / "basic.safetensors"
    own = path.read_bytes()
    if damage == "another model":
        run(max_cases=1, templates=["bob"], out=tmp_path / "other")
        other = tmp_path / "other" / "seed-0" / "models" / "basic.safetensors"
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(b"damaged")
    damaged = path.read_bytes()
    run()
    assert path.read_bytes() != damaged
    assert load_model(path).templates == ["ann"]
    assert len(path.read_bytes()) == len(own)
