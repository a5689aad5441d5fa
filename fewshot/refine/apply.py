"""Bring a prediction to a refiner, slice by slice, and its answer back to the volume."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.refine.base import Refiner, Region
from fewshot.volumes import SliceSpec, SliceStack, Volume


def refine(
    volume: Volume,
    prediction: Prediction,
    refiner: Refiner,
    *,
    spec: SliceSpec | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Prediction:
    """Refine all labels of a prediction.

    Args:
        volume: what was predicted.
        prediction: of that volume, from an adapter or a baseline.
        refiner: how; it looks at the volume in the slices of ``spec``.
        spec: plane and window; by default those of the prediction, else those of acquisition.
        seed: same seed, same result.
        progress: told the stage ``refine`` over slices.

    Returns:
        The prediction with refined labels. Its probabilities are the refiner's own; where it has none they are left
        out, for those of the adapter no longer say how certain the labels are.
    """
    start = time.perf_counter()
    said = prediction.provenance.get("spec")
    spec = spec or (SliceSpec.from_dict(said) if said else SliceSpec())
    stack = SliceStack(volume, SliceSpec(plane=spec.plane, window=spec.window), patch=1)
    values = np.array([0, *prediction.names.values()])
    lookup = np.zeros(max(int(values.max()), int(prediction.labels.max())) + 1, np.uint16)
    lookup[values] = np.arange(len(values))
    maps = prediction.probabilities
    region = Region(
        stack,
        list(prediction.names),
        lookup[stack.slices(prediction.labels)],
        None if maps is None else np.stack([stack.slices(of) for of in maps], axis=-1),
    )
    if not region.classes.any():
        return prediction
    refined = refiner.refine(region, seed=seed, progress=progress)
    changed = Prediction.from_slices(
        stack,
        refined.classes,
        _certainty(region, refined.classes, refined.probabilities),
        refined.probabilities,
        labels=prediction.names,
        timings={},
        provenance={
            **prediction.provenance,
            "refine": {
                "refiner": refiner.name,
                **({"why": refiner.why} if refiner.why else {}),
                **refiner.identity(),
                **refined.provenance,
            },
        },
        notes=[*prediction.notes, *refined.notes],
    )
    seconds = round(time.perf_counter() - start, 4)
    timings = {key: value for key, value in prediction.timings.items() if key != "total"}
    total = prediction.timings.get("total", sum(timings.values())) + seconds
    return replace(changed, timings={**timings, "refine": seconds, "total": total})


def _certainty(region: Region, classes: np.ndarray, probabilities: np.ndarray | None) -> np.ndarray:
    """Probability of the class of every pixel: the refiner's, else the adapter's, float16 ``[S, rows, cols]``."""
    maps = region.probabilities if probabilities is None else probabilities
    if maps is None:
        return np.ones(classes.shape, np.float16)
    return np.take_along_axis(maps, classes[..., None].astype(np.intp), axis=-1)[..., 0]
