"""The whole road on one page: templates in, a model out; a volume and a model in, a prediction out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fewshot import __version__
from fewshot.adapters import ADAPTERS
from fewshot.adapters.auto import AutoAdapter
from fewshot.atlas import Prior
from fewshot.auto import build_atlas, choose, locate
from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.features.bank import BankEntry
from fewshot.localize import MAX_PARTS, keep_components
from fewshot.model import Model
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.refine import Refiner, refine
from fewshot.support import Template, collect_samples, label_names, parts_per_label
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec
from fewshot.volumes.spec import SIZES, longest_count

COMPONENTS = ("auto", "largest", "all")
DEFAULT_SPEC = SliceSpec()
PROBABILITY_BYTES = 2 << 30
"""Probabilities of a volume that take more memory than this are not kept for a refiner, nor for an evaluation."""


def fit(
    templates: Sequence[Template],
    *,
    backbone: Backbone,
    bank: FeatureBank,
    labels: dict[str, int] | None = None,
    adapter: str = "auto",
    options: dict[str, Any] | None = None,
    spec: SliceSpec = DEFAULT_SPEC,
    cross_validate: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Model:
    """Fit an adapter on the support set.

    Args:
        templates: labelled volumes, wholly or on a few slices.
        labels: name -> value in predictions; by default all names that were drawn, numbered from 1.
        adapter: a key of ``ADAPTERS``.
        options: the adapter's settings that differ from its defaults.
        spec: how to cut volumes into slices; what it leaves open is decided from the templates.
        cross_validate: let the templates choose the default adapter's options, and say what Dice to expect.
        seed: same seed, same model.

    Raises:
        FewshotError: without templates, or if a wanted label was never drawn.
    """
    if adapter not in ADAPTERS:
        raise FewshotError(f"There is no adapter '{adapter}'; choose one of {', '.join(ADAPTERS)}.")
    if not templates:
        raise FewshotError("There is no template; label a structure in at least one volume first.")
    drawn = label_names(templates)
    labels = labels or {name: value for value, name in enumerate(drawn, start=1)}
    if missing := [name for name in labels if name not in drawn]:
        raise FewshotError(f"No template shows {', '.join(missing)}; label it in one, or leave it out.")
    spec = resolve(spec, [template.volume for template in templates], backbone)
    fitted = ADAPTERS[adapter].create(backbone.dim, len(labels), options)
    with_atlas = isinstance(fitted, AutoAdapter)
    samples = collect_samples(
        templates,
        list(labels),
        spec=spec,
        backbone=backbone,
        bank=bank,
        hard=with_atlas,
        seed=seed,
        progress=progress,
    )
    scores = fitted.fit(samples, seed=seed, progress=progress)
    atlas = None
    if isinstance(fitted, AutoAdapter):
        atlas = build_atlas(templates, list(labels), spec, backbone.patch)
    if isinstance(fitted, AutoAdapter) and cross_validate:
        fitted.options, expected = choose(
            fitted,
            templates,
            list(labels),
            samples,
            spec=spec,
            backbone=backbone,
            bank=bank,
            seed=seed,
            progress=progress,
        )
        scores |= expected
    return Model(
        adapter=fitted.eval(),
        labels=dict(labels),
        spec=spec,
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        layers=backbone.layers,
        parts=parts_per_label(templates, list(labels), spec, backbone.patch),
        templates=[template.volume.name for template in templates],
        scores=scores,
        atlas=atlas,
    )


def predict(
    volume: Volume,
    model: Model,
    *,
    backbone: Backbone,
    bank: FeatureBank,
    components: str = "auto",
    min_ml: float = 0.0,
    probabilities: bool = False,
    refiner: Refiner | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Prediction:
    """Find all labels of a model in a volume.

    Args:
        components: ``auto`` keeps as many of the largest connected parts of a label as its templates have,
            ``largest`` one, ``all`` every one.
        min_ml: connected parts smaller than this many millilitres are dropped.
        probabilities: also return the probability of every class at every voxel; they are at hand for the refiner
            in any case unless they would take more memory than ``PROBABILITY_BYTES``.
        refiner: makes what was found follow the structure's edges (`fewshot.refine`).
        seed: of the refiner's prompts.

    Raises:
        FewshotError: if the model was fitted on features of another backbone.
    """
    model.require(backbone)
    probabilities = probabilities or (
        refiner is not None and probability_bytes(volume, model) <= PROBABILITY_BYTES
    )
    if components not in COMPONENTS:
        raise FewshotError(f"Components can be {', '.join(COMPONENTS)}, not '{components}'.")
    timings: dict[str, float] = {}
    with timed(timings, "slices"):
        stack = SliceStack(volume, model.spec, patch=backbone.patch)
    with timed(timings, "features"):
        entry = bank.features(stack, backbone, progress=progress)
    notes = list(volume.notes) + list(stack.notes)
    prior = None
    if model.atlas and isinstance(model.adapter, AutoAdapter) and not stack.air.all():
        with timed(timings, "atlas"):
            found = locate(model.atlas, stack, model.adapter.options.blur)
        if found is None:
            notes.append(
                "The templates could not be registered with this image: labels are by appearance alone."
            )
        else:
            prior, _ = found
    with timed(timings, "adapter"):
        classes, certainty, maps = classify_slices(
            stack, entry, model, prior=prior, probabilities=probabilities, progress=progress
        )
    with timed(timings, "components"):
        parts = [_parts_to_keep(components, count) for count in model.parts]
        classes = keep_components(
            classes, parts, voxel_ml=float(np.prod(volume.spacing)) / 1000, min_ml=min_ml
        )
    if stack.air.all():
        notes.append("The image is constant or all air: there was nothing to look for.")
    prediction = Prediction.from_slices(
        stack,
        classes,
        certainty,
        maps,
        labels=model.labels,
        timings={**timings, "total": sum(timings.values())},
        provenance=_provenance(model, stack, entry, components=components, min_ml=min_ml),
        notes=notes,
    )
    if refiner is None:
        return prediction
    return refine(volume, prediction, refiner, seed=seed, progress=progress)


def probability_bytes(volume: Volume, model: Model) -> int:
    """Memory that the probabilities of all classes of a volume take."""
    return 2 * (len(model.labels) + 1) * math.prod(volume.shape)


def classify_slices(
    stack: SliceStack,
    entry: BankEntry,
    model: Model,
    *,
    prior: Prior | None = None,
    probabilities: bool = False,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The most probable class of every pixel of the volume's own in-plane grid.

    Args:
        prior: where labels lie by the registered templates, for the adapter that joins it with appearance.

    Returns:
        uint16 ``[S, rows, cols]`` classes (0 background, k the k-th label), float16 ``[S, rows, cols]``
        probability of that class, and if asked float16 ``[S, rows, cols, L + 1]`` all probabilities.
    """
    ys, xs = (torch.as_tensor(axis) for axis in stack.patch_coordinates())
    shape = (len(entry.rows), *stack.native)
    classes, certainty = np.zeros(shape, np.uint16), np.ones(shape, np.float16)
    maps = None
    if probabilities:
        maps = np.zeros((*shape, len(model.labels) + 1), np.float16)
        maps[..., 0] = 1  # air is background
    for index in np.flatnonzero(entry.rows >= 0):
        predicted = model.adapter.predict(entry.of_slice(index)[None], ys, xs)[0]
        if prior is not None and isinstance(model.adapter, AutoAdapter):
            predicted = model.adapter.join(predicted, torch.from_numpy(prior.of_slice(index)))
        best, choice = predicted.max(-1)
        classes[index], certainty[index] = choice.numpy(), best.numpy()
        if maps is not None:
            maps[index] = predicted.numpy()
        progress("predict", int(index) + 1, len(entry.rows))
    return classes, certainty, maps


def warm(
    volume: Volume, spec: SliceSpec, *, backbone: Backbone, bank: FeatureBank, progress: Progress = silent
) -> BankEntry:
    """Fill the bank for one volume, so that fitting on it or predicting it later starts at once."""
    stack = SliceStack(volume, resolve(spec, [volume], backbone), patch=backbone.patch)
    return bank.features(stack, backbone, progress=progress)


def resolve(spec: SliceSpec, volumes: Sequence[Volume], backbone: Backbone) -> SliceSpec:
    """Decide what a slicing leaves open: size by the backbone, the rest by the (template) volumes.

    A small crop is not magnified beyond what the backbone has been trained on.
    """
    if spec.size is None and volumes and backbone.magnification:
        voxels = statistics.median(longest_count(volume, spec.plane) for volume in volumes)
        size = min(backbone.size, max(SIZES[0], round(backbone.magnification * voxels)))
        return resolve_spec(replace(spec, size=size), volumes)
    return resolve_spec(replace(spec, size=spec.size or backbone.size), volumes)


def _parts_to_keep(components: str, template_parts: int) -> int | None:
    if components == "auto":
        return template_parts if template_parts <= MAX_PARTS else None
    return 1 if components == "largest" else None


def _provenance(model: Model, stack: SliceStack, entry: BankEntry, **settings: Any) -> dict[str, Any]:
    return {
        "fewshot": __version__,
        "adapter": model.adapter.name,
        "model": model.digest,
        "created": model.created,
        "backbone": {"name": model.backbone, "digest": model.backbone_digest, "layers": model.layers},
        "templates": model.templates,
        "spec": {**stack.spec.to_dict(), "plane": stack.plane},
        "features_from_bank": not entry.fresh,
        **(
            {"expected_dice": round(dice, 3)}
            if (dice := model.scores.get("expected_dice")) is not None
            else {}
        ),
        **settings,
    }


@contextmanager
def timed(
    timings: dict[str, float], stage: str, clock: Callable[[], float] = time.perf_counter
) -> Iterator[None]:
    """Note the seconds of a stage."""
    start = clock()
    yield
    timings[stage] = round(clock() - start, 4)
