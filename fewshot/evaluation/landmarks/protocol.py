"""Few-shot evaluation of landmarks: a few cases are the templates, all others are searched and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewshot import __version__
from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.base import Circumstances
from fewshot.evaluation.landmarks import views
from fewshot.evaluation.landmarks.methods import create_methods
from fewshot.evaluation.landmarks.report import write_report
from fewshot.evaluation.landmarks.rounds import sample_templates
from fewshot.evaluation.landmarks.store import LandmarkStore
from fewshot.evaluation.landmarks.work import Work
from fewshot.evaluation.protocol import only_writer
from fewshot.evaluation.rounds import Round, draw_rounds
from fewshot.evaluation.store import file_stamp
from fewshot.evaluation.versions import versions
from fewshot.pipeline import DEFAULT_SPEC
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec

if TYPE_CHECKING:
    from fewshot.features import Backbone, FeatureBank


def evaluate_landmarks(
    folder: Path | str,
    *,
    landmarks: Sequence[str] | Literal["all"] = "all",
    adapters: Sequence[str] = (),
    baselines: Sequence[str] = (),
    backbone: Backbone,
    bank: FeatureBank,
    out: Path | str,
    shots: int = 1,
    templates: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    crops: bool = True,
    spec: SliceSpec = DEFAULT_SPEC,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_cases: int | None = None,
    device: str = "auto",
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit each method once per seed on its templates, search every other case with landmarks and score it.

    Writes `results.json` and `report.html`, and for every seed `seed-S/models/ADAPTER.safetensors` and
    `seed-S/predictions/METHOD/CASE.mrk.json` below `out`. Every row is kept as soon as it is there: a run that was
    interrupted, or killed, goes on where it stopped. Landmarks that no template marks are left out; a case that
    cannot be read, and a method that cannot be fitted, are skipped. The results name them.

    Args:
        folder: the dataset.
        landmarks: only these; of a dataset without files of points, the centres of these labels.
        adapters: `auto`, or adapters whose components are the landmarks.
        baselines: `registration`.
        backbone: whose features are used.
        bank: where features are kept; all adapters share them.
        out: folder of the results.
        shots: how many templates to draw per seed if they are not told.
        templates: case names, the same for every seed.
        cases: only these cases, templates included; all if None.
        seeds: of the drawing and of the training; each gives its own results.
        crops: whether to search halves of every case too, in which some landmarks are absent.
        spec: how volumes become slices.
        options: adapter -> its options.
        max_cases: at most so many cases, the same for every seed; a larger number later adds to them.
        device: where methods compute.
        command: the command line, for the report.
        progress: told the stages "features" (volumes), "train" (methods) and "predict" (methods and views), each over
            all seeds; fractions stand for what is done of a unit.

    Raises:
        FewshotError: unknown names or options, too few cases with landmarks, or nothing that worked.

    Returns:
        The content of results.json.
    """
    shared = Circumstances(backbone, bank, spec, "all", device)
    methods = create_methods(adapters, baselines, options or {}, shared)
    dataset = Dataset.open(folder, landmarks=landmarks)
    dataset = dataset if cases is None else dataset.only(cases)
    rounds = draw_rounds(
        dataset, seeds, shots=shots, templates=templates, max_cases=max_cases, draw=sample_templates
    )
    shown = [views.WHOLE, *(views.HALVES if crops else ())]
    out = Path(out)
    with only_writer(out):
        store = LandmarkStore(
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
                "spec": spec.to_dict(),
                "landmarks": [*dataset.landmarks],
                "cases": sorted(cases) if cases is not None else None,
                "modality": dataset.modality,
                "hounsfield": dataset.hounsfield,
                "complete": dataset.complete,
                "backbone": [backbone.name, backbone.digest, backbone.layers],
                "version": __version__,
            },
            options={method.name: method.options for method in methods},
            refiners={name: views.identity(name) for name in shown},
            stamps=_stamps(rounds),
            names=dataset.landmarks,
            versions=versions(),
        )
        work = Work(dataset, store, shared, methods, shown, rounds, progress)
        try:
            for each in rounds:
                work.do(each)
        finally:
            for name, why in dataset.lost.items():
                store.failed.setdefault(name, why)
            results = store.write()  # also if the user stops it
        if not store.rows:
            reason = next(iter(store.failed.values()), "they hold none of the landmarks.")
            raise FewshotError(f"No case of {dataset.folder} could be evaluated: {reason}")
        write_report(out, dataset)
    return results


def _stamps(rounds: Sequence[Round]) -> dict[str, str]:
    """What changes with the files of a case, of all cases that are searched."""
    cases = {case.name: case for each in rounds for case in each.queries}
    return {name: file_stamp(case.image, case.label, case.landmarks) for name, case in cases.items()}
