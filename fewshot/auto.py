"""How the default adapter is fitted: network, atlas, and the choices that the templates themselves can make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fewshot.adapters.auto import AutoAdapter, joined
from fewshot.adapters.samples import Samples
from fewshot.atlas import Atlas, AtlasTemplate, Prior
from fewshot.features import Backbone, BankEntry, FeatureBank
from fewshot.progress import Progress, silent
from fewshot.support import Template, class_map
from fewshot.volumes import SliceSpec, SliceStack

WEIGHTS = (0.0, 0.35, 0.75, 1.25)
"""Exponents of the appearance that are compared; 0 is the prior alone."""
BLURS = (0.05, 0.15, 0.35)
"""Blurs of the prior that are compared, in radii."""

GAIN = 0.005
"""Another choice than the default must find this much more Dice on the templates; less is chance."""

MAX_FOLDS = 4
SLICE_FOLDS = 3
FEWEST_SLICES = 9
"""With fewer labelled slices in a single template, each left-out one takes too much with it to tell anything: tried on
five slices of a hippocampus the expected Dice was .17 and .72 was reached, on five of a head .69 and .35."""

MAX_SLICES = 16
"""Slices of a left-out template that are compared: more hardly change the mean."""
MAX_NUMBERS = 4_000_000
"""Probabilities of a slice that are compared: of a hundred labels on 512 x 512 pixels, every third pixel."""
MAX_REFERENCES = 2
"""Templates that are registered with a left-out one."""
FOLD_EPOCHS = 6


def build_atlas(templates: Sequence[Template], labels: Sequence[str], spec: SliceSpec, patch: int) -> Atlas:
    """The templates as an atlas, classes in the order of ``labels``."""
    return Atlas([_atlas_template(template, labels, spec, patch) for template in templates], spec.window)


def locate(atlas: Atlas, stack: SliceStack, blur: float) -> tuple[Prior, float] | None:
    """The prior of a volume and the best template's similarity; None where no template was found in it."""
    located = atlas.locate(stack)
    if located is None:
        return None
    return located.prior(_sigmas(atlas, blur)), max(of.similarity for _, of in located.found)


def choose(
    adapter: AutoAdapter,
    templates: Sequence[Template],
    labels: Sequence[str],
    samples: Samples,
    *,
    spec: SliceSpec,
    backbone: Backbone,
    bank: FeatureBank,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[AutoAdapter.Options, dict[str, float]]:
    """Cross-validate on the templates: the best weight and blur, and the Dice coefficient to expect.

    Two or more templates are left out one at a time (at most ``MAX_FOLDS``): the others are registered with it,
    as they will be with a new patient. A single template can only leave out some of its slices, of the same
    patient, if ``FEWEST_SLICES`` are labelled: that tells nothing about registration, so the defaults stay, and the
    expected Dice is mostly too hopeful.

    Returns:
        The adapter's options, and ``expected_dice`` with ``folds`` (both missing where nothing can be left out)
        and ``other_patients`` (1 or 0: whether whole templates were left out).
    """
    parts = [_Part(template, labels, spec, backbone, bank) for template in templates]
    offsets = np.cumsum([0, *(len(part.stack) for part in parts)])
    whole = len(parts) > 1
    tally = _Tally(len(labels))
    folds = list(_template_folds(parts) if whole else _slice_folds(parts[0]))
    fitted = 0
    for done, fold in enumerate(folds):
        progress("folds", done, len(folds))
        out = offsets[fold.part] + fold.held
        rest = samples[torch.nonzero(~torch.isin(samples.slices, torch.from_numpy(out))).flatten()]
        if whole:
            mine = (samples.slices >= offsets[fold.part]) & (samples.slices < offsets[fold.part + 1])
            rest = samples[torch.nonzero(~mine).flatten()]
        if len(rest.targets.unique()) < 2:
            continue
        of_fold = AutoAdapter(
            adapter.dim,
            adapter.labels,
            replace(adapter.options, epochs=min(FOLD_EPOCHS, adapter.options.epochs)),
        )
        of_fold.fit(rest, seed=seed)
        learnt = set(rest.targets.tolist())
        tally.add(parts[fold.part], fold.compared, of_fold.eval(), fold.priors(), learnt)
        fitted += 1
    progress("folds", len(folds), len(folds))
    scores = tally.scores()
    if not scores:
        return adapter.options, {}
    default = _nearest_candidate(adapter.options)
    best = max(scores, key=lambda candidate: scores[candidate])
    if not whole or not adapter.options.choose or scores[best] < scores[default] + GAIN:
        best = default
    weight, blur = best
    chosen = replace(adapter.options, weight=weight, blur=blur) if best != default else adapter.options
    found = {"expected_dice": scores[best], "folds": float(fitted), "other_patients": float(whole)}
    return chosen, found


class _Part:
    """A template with its features and classes."""

    def __init__(
        self,
        template: Template,
        labels: Sequence[str],
        spec: SliceSpec,
        backbone: Backbone,
        bank: FeatureBank,
    ) -> None:
        self.stack = SliceStack(template.volume, spec, patch=backbone.patch)
        self.entry: BankEntry = bank.features(self.stack, backbone)
        self.atlas = _atlas_template(template, labels, spec, backbone.patch)
        self.window = spec.window
        self.classes = self.stack.slices(class_map(template, labels))
        drawn = (self.classes != 0).any((1, 2))
        self.known = np.flatnonzero((drawn | template.complete) & ~self.stack.air)
        self.shown = np.flatnonzero(drawn & ~self.stack.air)


@dataclass(frozen=True)
class _Fold:
    """What is left out: slices ``held`` of a part, of which ``compared`` are looked at."""

    part: int
    held: np.ndarray
    compared: np.ndarray
    parts: list[_Part]
    inside: bool

    def priors(self) -> dict[float, Prior | None]:
        """The prior by what was not left out, for every blur."""
        part = self.parts[self.part]
        if self.inside:
            labelled = part.atlas.labelled.copy()
            labelled[_along_array(part, self.held)] = False
            atlas = Atlas(
                [replace(part.atlas, labelled=labelled, classes=_without(part, self.held))], part.window
            )
            located = atlas.in_place(part.stack)
        else:
            others = [other for index, other in enumerate(self.parts) if index != self.part]
            atlas = Atlas([other.atlas for other in others[:MAX_REFERENCES]], part.window)
            found = atlas.locate(part.stack)
            if found is None:
                return dict.fromkeys(BLURS)
            located = found
        return {blur: located.prior(_sigmas(atlas, blur)) for blur in BLURS}


def _template_folds(parts: list[_Part]) -> Iterator[_Fold]:
    for index, part in enumerate(parts[:MAX_FOLDS]):
        yield _Fold(index, part.known, _some(part.shown), parts, inside=False)


def _slice_folds(part: _Part) -> Iterator[_Fold]:
    """Every n-th slice is left out; the outermost are not compared, for beyond them nothing is known."""
    if len(part.shown) >= FEWEST_SLICES:
        for held in (part.shown[fold::SLICE_FOLDS] for fold in range(SLICE_FOLDS)):
            yield _Fold(0, held, _some(np.intersect1d(held, part.shown[1:-1])), [part], inside=True)


def _some(slices: np.ndarray) -> np.ndarray:
    """At most ``MAX_SLICES`` of them, evenly spread."""
    return (
        slices[np.unique(np.linspace(0, len(slices) - 1, MAX_SLICES).round().astype(int))]
        if len(slices)
        else slices
    )


class _Tally:
    """Pixels in common, in the truth and found, for every candidate, label and left-out part."""

    def __init__(self, labels: int) -> None:
        self._labels = labels
        self._counts: dict[tuple[tuple[float, float], int, int], np.ndarray] = defaultdict(
            lambda: np.zeros(3, np.int64)
        )

    def add(
        self,
        part: _Part,
        slices: np.ndarray,
        adapter: AutoAdapter,
        priors: dict[float, Prior | None],
        learnt: set[int],
    ) -> None:
        """Let every candidate find on some slices the labels that it has learnt: others nobody could find."""
        ys, xs = (torch.as_tensor(axis) for axis in part.stack.patch_coordinates())
        drawn = [
            label for label in range(1, self._labels + 1) if part.atlas.drawn[label - 1] and label in learnt
        ]
        for index in slices.tolist():
            appearance = adapter.predict(part.entry.of_slice(index)[None], ys, xs)[0]
            step = _step(appearance)
            appearance, truth = appearance[::step, ::step], part.classes[index][::step, ::step]
            for blur, prior in priors.items():
                place = None if prior is None else torch.from_numpy(prior.of_slice(index)[::step, ::step])
                for weight in WEIGHTS:
                    found = _classes(appearance, place, weight)
                    for label in drawn:
                        here, there = truth == label, found == label
                        areas = [np.count_nonzero(area) for area in (here & there, here, there)]
                        self._counts[(weight, blur), label, id(part)] += areas

    def scores(self) -> dict[tuple[float, float], float]:
        """Mean Dice of every candidate: over the parts that show a label, then over the labels."""
        scores = {}
        for candidate in product(WEIGHTS, BLURS):
            of_labels = defaultdict(list)
            for (of, label, _), (both, truth, found) in self._counts.items():
                if of == candidate and truth:
                    of_labels[label].append(2 * both / (truth + found))
            if of_labels:
                scores[candidate] = float(np.mean([np.mean(values) for values in of_labels.values()]))
        return scores


def _step(probabilities: Tensor) -> int:
    """Every how many-th row and column of ``[rows, cols, L + 1]`` is enough."""
    return max(1, int(np.ceil(np.sqrt(probabilities.numel() / MAX_NUMBERS))))


def _classes(appearance: Tensor, place: Tensor | None, weight: float) -> np.ndarray:
    if place is None:
        return appearance.argmax(-1).numpy()
    return joined(appearance, place, weight).argmax(-1).numpy()


def _nearest_candidate(options: AutoAdapter.Options) -> tuple[float, float]:
    return (
        min(WEIGHTS, key=lambda weight: abs(weight - options.weight)),
        min(BLURS, key=lambda blur: abs(blur - options.blur)),
    )


def _sigmas(atlas: Atlas, blur: float) -> list[float]:
    return [0.0 if np.isnan(radius) else float(blur * radius) for radius in atlas.radii]


def _atlas_template(template: Template, labels: Sequence[str], spec: SliceSpec, patch: int) -> AtlasTemplate:
    stack = SliceStack(template.volume, spec, patch=patch)
    classes = class_map(template, labels)
    shown = (stack.slices(classes) != 0).any((1, 2))
    labelled = np.ones_like(shown) if template.complete else shown
    return AtlasTemplate.of(
        template.volume,
        np.maximum(classes, 0),
        window=spec.window,
        axis=stack.axis,
        labelled=labelled if stack.upright else labelled[::-1],
        drawn=[name in template.drawn for name in labels],
    )


def _along_array(part: _Part, slices: np.ndarray) -> np.ndarray:
    """Slice numbers as indices along the array's axis."""
    return slices if part.stack.upright else len(part.stack) - 1 - slices


def _without(part: _Part, slices: np.ndarray) -> np.ndarray:
    classes = np.moveaxis(part.atlas.classes.copy(), part.atlas.axis, 0)
    classes[_along_array(part, slices)] = 0
    return np.moveaxis(classes, 0, part.atlas.axis)
