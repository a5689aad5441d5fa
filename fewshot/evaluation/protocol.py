"""Few-shot evaluation: a few cases are the templates, all others are predicted and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from fewshot import __version__
from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.base import Circumstances
from fewshot.evaluation.methods import create_methods
from fewshot.evaluation.refiners import check_refiners, create_refinements
from fewshot.evaluation.report import write_report
from fewshot.evaluation.rounds import Round, draw_rounds
from fewshot.evaluation.store import ResultStore, file_stamp
from fewshot.evaluation.versions import versions
from fewshot.evaluation.work import Work
from fewshot.pipeline import COMPONENTS, DEFAULT_SPEC
from fewshot.progress import Progress, silent
from fewshot.refine import UNREFINED
from fewshot.refine.choice import AUTO
from fewshot.volumes import SliceSpec

if TYPE_CHECKING:
    from fewshot.features import Backbone, FeatureBank


def evaluate(
    folder: Path | str,
    *,
    adapters: Sequence[str] = (),
    baselines: Sequence[str] = (),
    refiners: Sequence[str] = (UNREFINED,),
    prompts: Sequence[str] | None = None,
    sam: str = AUTO,
    backbone: Backbone,
    bank: FeatureBank,
    out: Path | str,
    shots: int = 1,
    templates: Sequence[str] | None = None,
    template_slices: int | None = None,
    labels: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    complete: bool | None = None,
    seeds: Sequence[int] = (0,),
    components: str = "auto",
    spec: SliceSpec = DEFAULT_SPEC,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_cases: int | None = None,
    device: str = "auto",
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit each method once per seed on its templates, predict every other labelled case and score it.

    Writes `results.json` and `report.html`, and for every seed `seed-S/models/ADAPTER.safetensors` and
    `seed-S/predictions/METHOD/CASE.nii.gz` below `out`. Every row is kept as soon as it is there: a run that was
    interrupted, or killed, goes on where it stopped. Labels that no template holds are left out; a case that cannot
    be read or lacks a file that the dataset lists, and a method that cannot be fitted, are skipped. The results name
    them, and what reading a case had to decide.

    Args:
        folder: the dataset.
        adapters: names of `ADAPTERS`.
        baselines: names of `BASELINES`.
        refiners: names of `fewshot.refine.REFINERS`; each is applied to every prediction.
        prompts: strategies (`fewshot.refine.prompts.PROMPTS`); refiners that take prompts are applied with each, and
            called `REFINER:STRATEGY`. None for each refiner's own.
        sam: Segment Anything weights, a name of `fewshot.refine.sam.SAMS` or a file; `auto` takes what is at hand.
        backbone: whose features are used.
        bank: where features are kept; all adapters share them.
        out: folder of the results.
        shots: how many templates to draw per seed if they are not told.
        templates: case names, the same for every seed; drawn by `sample_templates` if None.
        template_slices: only so many labelled slices of every template are known; all if None.
        labels: only these labels of the dataset; all if None.
        cases: only these cases, templates included; all if None.
        complete: in place of the dataset's own word on slices without label (`Dataset.complete`).
        seeds: of the drawing and of the training; each gives its own results.
        components: as in `predict`.
        spec: how volumes become slices.
        options: adapter, baseline or refiner -> its options.
        max_cases: at most so many cases, the same for every seed; a larger number later adds to them.
        device: where baselines and refiners compute.
        command: the command line, for the report.
        progress: told the stages "features" (volumes), "train" (methods) and "predict" (methods and cases), each over
            all seeds; fractions stand for what is done of a unit.

    Raises:
        FewshotError: unknown names or options, a refiner without weights, too few labelled cases, or nothing that
            worked.

    Returns:
        The content of results.json.
    """
    check_refiners(refiners, prompts)
    if components not in COMPONENTS:
        raise FewshotError(f"Components can be {', '.join(COMPONENTS)}, not '{components}'.")
    if template_slices is not None and template_slices < 1:
        raise FewshotError(f"{template_slices} labelled slices per template are too few: give at least 1.")
    shared = Circumstances(backbone, bank, spec, components, device)
    of_refiners = {name: of for name, of in (options or {}).items() if name in refiners and name != AUTO}
    of_methods = {name: of for name, of in (options or {}).items() if name not in of_refiners}
    methods = create_methods(adapters, baselines, of_methods, shared)
    dataset = Dataset.open(folder, labels=labels)
    dataset = dataset if complete is None else replace(dataset, complete=complete)
    dataset = dataset if cases is None else dataset.only(cases)
    rounds = draw_rounds(dataset, seeds, shots=shots, templates=templates, max_cases=max_cases)
    refinements = create_refinements(
        refiners, prompts, of_refiners, sam=sam, bank=bank, device=device, progress=progress
    )
    out = Path(out)
    with only_writer(out):
        store = ResultStore(
            out,
            about={
                "dataset": dataset.name,
                "shots": len(rounds[0].templates),
                "backbone": backbone.name,
                "command": command,
                "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            },
            settings={
                "shots": None if templates else shots,
                "templates": sorted(set(templates)) if templates else None,
                "template_slices": template_slices,
                "components": components,
                "spec": spec.to_dict(),
                "labels": dataset.labels,
                "ignored": sorted(dataset.ignored),
                "cases": sorted(cases) if cases is not None else None,
                "modality": dataset.modality,
                "hounsfield": dataset.hounsfield,
                "complete": dataset.complete,
                "backbone": [backbone.name, backbone.digest, backbone.layers],
                "version": __version__,
            },
            options={method.name: method.options for method in methods},
            refiners={of.name: of.identity() for of in refinements},
            stamps=_stamps(rounds),
            names=list(dataset.labels),
            versions=versions(),
        )
        work = Work(dataset, store, shared, methods, refinements, rounds, template_slices, progress)
        try:
            for each in rounds:
                work.do(each)
        finally:
            for name, why in dataset.lost.items():
                store.failed.setdefault(name, why)
            results = store.write()  # also if the user stops it
        if not store.rows:
            reason = next(iter(store.failed.values()))
            raise FewshotError(f"No case of {dataset.folder} could be evaluated: {reason}")
        write_report(out, dataset)
    return results


def _stamps(rounds: Sequence[Round]) -> dict[str, str]:
    """What changes with the files of a case, of all cases that are predicted."""
    cases = {case.name: case for each in rounds for case in each.queries}
    return {name: file_stamp(case.image, case.label) for name, case in cases.items()}


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other evaluations out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise FewshotError(
            f"Another evaluation is writing to {folder}: wait or give another folder."
        ) from error
