"""Few-shot evaluation: a few cases are the templates, all others are predicted and scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from fewshot import __version__
from fewshot.adapters import ADAPTERS
from fewshot.dataset import Case, Dataset
from fewshot.errors import FewshotError
from fewshot.evaluation.metrics import label_scores
from fewshot.evaluation.report import prediction_path, write_report
from fewshot.evaluation.store import ResultStore, file_stamp
from fewshot.evaluation.templates import read_templates, sample_templates, shuffled_cases
from fewshot.model import Model, load_model
from fewshot.pipeline import DEFAULT_SPEC, fit, predict, warm
from fewshot.progress import Progress, silent
from fewshot.support import Template
from fewshot.volumes import SliceSpec, Volume, write_labels
from fewshot.volumes.planes import in_plane

if TYPE_CHECKING:
    from fewshot.features import Backbone, FeatureBank


REFINERS = ("none",)


def evaluate(
    folder: Path | str,
    *,
    adapters: Sequence[str],
    backbone: Backbone,
    bank: FeatureBank,
    out: Path | str,
    shots: int = 1,
    templates: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    complete: bool | None = None,
    seed: int = 0,
    refine: str = "none",
    components: str = "auto",
    spec: SliceSpec = DEFAULT_SPEC,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_cases: int | None = None,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit each adapter once on the templates, predict every other labelled case and score it.

    Writes `results.json` (after every case: an interrupted run goes on where it stopped), `report.html`,
    `models/ADAPTER.safetensors` and `predictions/ADAPTER/CASE.nii.gz` below `out`. Labels that no template
    holds are left out, and a case that cannot be read is skipped; the results name both.

    Args:
        folder: the dataset.
        adapters: names of `ADAPTERS`.
        backbone: whose features are used.
        bank: where features are kept; all adapters share them.
        out: folder of the results.
        shots: how many templates to draw if they are not told.
        templates: case names; drawn by `sample_templates` if None.
        labels: only these labels of the dataset; all if None.
        cases: only these cases, templates included; all if None.
        complete: in place of the dataset's own word on slices without label (`Dataset.complete`).
        seed: of the drawing and of the training.
        refine: one of `REFINERS`.
        components: as in `predict`.
        spec: how volumes become slices.
        options: adapter -> its options.
        max_cases: at most so many cases, drawn with the seed; a larger number later adds to them.
        command: the command line, for the report.
        progress: receives "features" and "train" while fitting, then "predict" in units of case and adapter.

    Raises:
        FewshotError: unknown names, too few labelled cases, an unreadable template, or no case that worked.

    Returns:
        The content of results.json.
    """
    _check(adapters, refine)
    dataset = Dataset.open(folder, labels=labels)
    dataset = dataset if complete is None else replace(dataset, complete=complete)
    dataset = dataset if cases is None else dataset.only(cases)
    drawn = dataset.choose(templates) if templates else sample_templates(dataset, shots, seed=seed)
    queries = [case for case in shuffled_cases(dataset, seed) if case not in drawn][:max_cases]
    if not queries:
        raise FewshotError(
            f"{dataset.folder} has no labelled case besides its {len(drawn)} templates: give fewer."
        )
    support, untested = read_templates(dataset, drawn)
    out = Path(out)
    with _only_writer(out):
        store = ResultStore(
            out,
            about={
                "dataset": dataset.name,
                "shots": len(drawn),
                "templates": [case.name for case in drawn],
                "backbone": backbone.name,
                "labels_without_template": untested,
                "command": command,
                "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            },
            settings={
                "seed": seed,
                "refine": refine,
                "components": components,
                "spec": spec.to_dict(),
                "labels": dict(support[0].names),
                "cases": sorted(cases) if cases is not None else None,
                "modality": dataset.modality,
                "complete": dataset.complete,
                "templates": {template.volume.name: _digest(template) for template in support},
                "backbone": [backbone.name, backbone.digest, backbone.layers],
                "version": __version__,
            },
            options={adapter: dict((options or {}).get(adapter, {})) for adapter in adapters},
            stamps={case.name: file_stamp(case.image, case.label) for case in queries},
        )
        run = _Run(dataset, store, backbone, bank, progress, total=len(queries) * len(adapters))
        todo = {case: [name for name in adapters if not store.has(case.name, name)] for case in queries}
        run.done = run.total - sum(map(len, todo.values()))
        models = {
            name: run.fit(name, support) for name in adapters if any(name in of for of in todo.values())
        }
        for case, missing in todo.items():
            try:
                if missing:
                    run.predict(case, {name: models[name] for name in missing})
            except FewshotError as error:
                store.failed[case.name] = str(error)
        if not store.rows:
            raise FewshotError(
                f"No case of {dataset.folder} could be evaluated: {next(iter(store.failed.values()))}"
            )
        results = store.write()
        write_report(out, dataset)
    return results


@dataclass
class _Run:
    """What the cases of one evaluation share, and how far it has come (in units of case and adapter)."""

    dataset: Dataset
    store: ResultStore
    backbone: Backbone
    bank: FeatureBank
    progress: Progress
    total: int
    done: int = 0

    def fit(self, adapter: str, support: Sequence[Template]) -> Model:
        """The adapter's model: fitted and saved, or as an interrupted run left it."""
        path = self.store.folder / "models" / f"{adapter}.safetensors"
        if adapter in self.store.models:
            with suppress(FewshotError):  # lost or damaged: fitted again below
                kept = load_model(path)
                if kept.digest == self.store.models[adapter]["digest"]:
                    return kept
        start = time.perf_counter()
        model = fit(
            support,
            labels=dict(support[0].names),
            adapter=adapter,
            options=self.store.options[adapter],
            backbone=self.backbone,
            bank=self.bank,
            spec=SliceSpec.from_dict(self.store.settings["spec"]),
            seed=self.store.settings["seed"],
            progress=self.progress,
        )
        model.save(path)
        self.store.models[adapter] = {
            "digest": model.digest,
            "spec": model.spec.to_dict(),
            "scores": model.scores,
            "seconds": _since(start),
        }
        self.store.write()
        return model

    def predict(self, case: Case, models: Mapping[str, Model]) -> None:
        """Predict and score one case: read once, features computed once, then every adapter on them."""
        start = time.perf_counter()
        volume = self.dataset.volume(case)
        truth = self.dataset.label_map(case, volume)
        read, start = _since(start), time.perf_counter()
        for spec in {model.spec for model in models.values()}:
            warm(volume, spec, backbone=self.backbone, bank=self.bank, progress=self._beat)
        self.store.stages[case.name] = {"read": read, "features": _since(start)}
        for adapter, model in models.items():
            self._predict(case, volume, truth, adapter, model)

    def _predict(self, case: Case, volume: Volume, truth: np.ndarray, adapter: str, model: Model) -> None:
        settings = self.store.settings
        start = time.perf_counter()
        prediction = predict(
            volume,
            model,
            backbone=self.backbone,
            bank=self.bank,
            components=settings["components"],
            progress=self._beat,
        )
        seconds = _since(start)
        scores = label_scores(
            truth,
            prediction.labels,
            model.labels,
            affine=volume.affine,
            slice_axis=_slice_axis(volume, model.spec.plane),
            calibrated=volume.calibrated,
        )
        path = prediction_path(self.store.folder, adapter, case.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, prediction.labels, volume)
        common = {"case": case.name, "adapter": adapter, "refine": settings["refine"]}
        self.store.rows += [
            {**common, "label": label, **asdict(of), "seconds": seconds} for label, of in scores.items()
        ]
        self.store.write()
        self.done += 1
        self._beat()

    def _beat(self, *_: object, **__: object) -> None:
        """Report where the whole run is, also from within a case, so that it can be cancelled there."""
        self.progress("predict", self.done, self.total)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other evaluations out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise FewshotError(
            f"Another evaluation is writing to {folder}: wait or give another folder."
        ) from error


def _check(adapters: Sequence[str], refine: str) -> None:
    """Refuse unknown names before anything is computed."""
    if unknown := [adapter for adapter in adapters if adapter not in ADAPTERS]:
        raise FewshotError(f"There is no adapter {', '.join(unknown)}: choose among {', '.join(ADAPTERS)}.")
    if not adapters:
        raise FewshotError(f"There is no adapter to evaluate: choose among {', '.join(ADAPTERS)}.")
    if refine not in REFINERS:
        raise FewshotError(f"There is no refinement {refine}: choose among {', '.join(REFINERS)}.")


def _digest(template: Template) -> str:
    labels = hashlib.blake2b(np.ascontiguousarray(template.labels).data, digest_size=16).hexdigest()
    return f"{template.volume.digest} {labels}"


def _slice_axis(volume: Volume, plane: str) -> int:
    """The array axis along which the slices of a plane are stacked."""
    return ({0, 1, 2} - {*in_plane(volume.affine, plane)}).pop()


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
