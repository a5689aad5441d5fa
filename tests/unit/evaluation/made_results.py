"""A made-up results folder in the form that an evaluation writes: phantoms and perturbed label maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from fewshot.dataset import Dataset
from fewshot.evaluation.store import prediction_path
from fewshot.evaluation.summary import summarise, summarise_cases
from fewshot.phantoms import ORGANS, write_studies
from fewshot.volumes import write_labels

METHODS = {"auto": 1, "contrastive+walker": 2, "prototype": 3, "registration": 4, "unet": 5}
"""Method -> by how many voxels its label maps are wrong, at most."""
PROMPTED = {
    "auto+sam:random": 1, "auto": 3, "auto+walker": 2, "auto+sam:box": 5, "unet": 6, "unet+sam:random": 4,
}  # fmt: skip
"""The same with refinements by SAM."""
LABELS = {name: value for name, value in ORGANS.items() if name != "spine"}
SHAPE = (40, 34, 16)


def write_results(
    folder: Path,
    *,
    cases: int = 12,
    seeds: Sequence[int] = (0, 1),
    methods: Mapping[str, int] = METHODS,
) -> tuple[Path, Dataset]:
    """Write a dataset and the results of some methods on it; returns the results' folder and the dataset."""
    out = folder / "results"
    templates = write_studies(folder / "phantoms", cases + len(seeds), shape=SHAPE)[cases:]
    dataset = Dataset.open(folder / "phantoms", labels=list(LABELS))
    rows: list[dict[str, Any]] = []
    timings: list[dict[str, Any]] = []
    confusion = {method: _nothing_found() for method in methods}
    for case in list(dataset.cases.values())[:cases]:
        volume = dataset.volume(case)
        truth = dataset.label_map(case, volume)
        for seed in seeds:
            for number, (method, wrong) in enumerate(methods.items()):
                rng = np.random.default_rng([seed, number, *case.name.encode()])
                found = perturb(truth, wrong, rng)
                path = prediction_path(out, method, case.name, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_labels(path, found, volume)
                _count(confusion[method], truth, found)
                adapter, _, refine = method.partition("+")
                common = {
                    "seed": seed,
                    "case": case.name,
                    "adapter": adapter,
                    "refine": refine or "none",
                }
                rows += [
                    common | {"label": label} | _scores(truth == value, found == value, rng)
                    for label, value in LABELS.items()
                ]
                record = {"masks": 20, "taken": 20 - 3 * wrong, "encoded": 8} if "sam" in refine else None
                times = {"read": 0.1, "total": 0.2 * 3**number + 0.01 * len(rows) / 100}
                timings.append(common | times | {"refinement": record})
    models = [
        {
            "seed": seed,
            "adapter": name,
            "seconds": 1.5 * 2**number,
            "scores": {} if name in ("registration", "unet") else {"expected_dice": 0.8 - 0.1 * number},
            "digest": None if name in ("registration", "unet") else f"{number}{seed}" * 8,
            "spec": None,
            "provenance": {},
            "note": "its weights are random: nobody trained them" if name == "unet" else None,
        }
        for seed in seeds
        for number, name in enumerate(dict.fromkeys(name.partition("+")[0] for name in methods))
    ]
    results = {
        "dataset": "phantoms",
        "shots": 1,
        "templates": templates,
        "backbone": "random-tiny",
        "labels_without_template": ["spine"],
        "command": "fewshot evaluate phantoms --out results --adapters auto,contrastive,prototype "
        "--baselines registration,unet --refine none,walker --seeds 0,1",
        "created": "2026-11-21T10:00:00+00:00",
        "seeds": list(seeds),
        "runs": [
            {
                "seed": seed,
                "templates": [template],
                "template_slices": {template: [3, 7, 9]},
                "labels_without_template": ["spine"],
            }
            for seed, template in zip(seeds, templates, strict=True)
        ],
        "rows": rows,
        "summary": summarise(rows),
        "overall": summarise_cases(rows),
        "models": models,
        "timings": timings,
        "confusion": confusion,
        "failed": {"phantom_99": "its label map lies on another grid."},
        "settings": {
            "components": "auto",
            "spec": {"plane": "axial", "window": "ct-soft", "size": 224, "pixel_mm": None},
            "labels": LABELS,
            "modality": "CT",
            "complete": True,
        },
        "options": {"contrastive": {"hidden": [32, 32], "steps": 300}, "prototype": {}},
        "stamps": {},
        "signature": "0123456789abcdef",
        "versions": {"fewshot": "0.3.0", "numpy": np.__version__},
    }
    save(out, results)
    return out, dataset


def save(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False), encoding="utf-8")


def perturb(truth: np.ndarray, wrong: int, rng: np.random.Generator) -> np.ndarray:
    """A label map that is wrong in place and size, and now and then without one of its labels."""
    found = np.zeros_like(truth)
    for value in LABELS.values():
        mask = truth == value
        if rng.random() < 0.01 * wrong:
            continue
        mask = np.roll(mask, rng.integers(-wrong, wrong + 1, 2) // 2, axis=(0, 1))
        grow = int(rng.integers(-wrong, wrong + 1)) // 2
        if grow:
            mask = (ndimage.binary_dilation if grow > 0 else ndimage.binary_erosion)(
                mask, iterations=abs(grow)
            )
        found[mask] = value
    if rng.random() < 0.05 * wrong:
        left, right = LABELS["kidney_left"], LABELS["kidney_right"]
        found[found == left] = right
    return found


def _scores(truth: np.ndarray, found: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    both, either = int((truth & found).sum()), int((truth | found).sum())
    there, seen = bool(truth.any()), bool(found.any())
    dice = 2 * both / (int(truth.sum()) + int(found.sum())) if there else None
    apart = None
    if there and seen:
        apart = (
            float(np.linalg.norm(np.subtract(*(np.argwhere(of).mean(axis=0) for of in (truth, found))))) * 8
        )
    empty = ~truth.any(axis=(0, 1))
    return {
        "iou": both / either if there else None,
        "dice": dice,
        "hd95_mm": None if apart is None else 2 * apart + 3,
        "surface_mm": None if apart is None else 0.5 * apart + 1,
        "distance_mm": apart,
        "distance_px": None if apart is None else apart / 1.5,
        "hit_10px": (apart is not None and apart / 1.5 < 10) if there else None,
        "false_positive_slices": int((found.any(axis=(0, 1)) & empty).sum()),
        "slices_without_label": int(empty.sum()),
        "truth_ml": float(truth.sum()) * 1.2,
        "predicted_ml": float(found.sum()) * 1.2,
        "volume_error": (int(found.sum()) - int(truth.sum())) / int(truth.sum()) if there else None,
        "ece": float(rng.uniform(0.01, 0.05)),
        "seconds": float(rng.uniform(0.1, 0.3)),
    }


def _nothing_found() -> dict[str, dict[str, int]]:
    names = ("background", *LABELS)
    return {truth: dict.fromkeys(names, 0) for truth in names}


def _count(counts: dict[str, dict[str, int]], truth: np.ndarray, found: np.ndarray) -> None:
    values = {"background": 0, **LABELS}
    for name, value in values.items():
        for other, wrong in values.items():
            counts[name][other] += int(((truth == value) & (found == wrong)).sum())
