"""How well templates explain each other: an adapter fitted on some has to find the labels of those left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fewshot.errors import FewshotError
from fewshot.features import Backbone, BankEntry, FeatureBank
from fewshot.model import Model
from fewshot.pipeline import DEFAULT_SPEC, fit, resolve
from fewshot.progress import Progress, silent
from fewshot.support import Template, label_names
from fewshot.volumes import SliceSpec, SliceStack

MAX_FOLDS = 5
SLICE_FOLDS = 3
"""Neighbouring slices show nearly the same, so a template's slices are left out in a few contiguous groups."""


class TooFewLabelsError(FewshotError):
    """Nothing can be left out: all that was labelled is needed to fit on."""


@dataclass(frozen=True)
class CrossValidation:
    """What templates that were left out say.

    Attributes:
        dice: label -> Dice coefficient on labelled slices while they were left out, mean over the templates that
            show it. A label without a value is missing: only one of several templates shows it. Pixels are compared
            as the adapter classifies them, before connected components are chosen.
        mean: over these labels.
        folds: how many adapters were fitted.
    """

    dice: dict[str, float]
    mean: float
    folds: int


def cross_validate(
    templates: Sequence[Template],
    *,
    backbone: Backbone,
    bank: FeatureBank,
    labels: Sequence[str] | None = None,
    adapter: str = "classification",
    options: dict[str, Any] | None = None,
    spec: SliceSpec = DEFAULT_SPEC,
    seed: int = 0,
    progress: Progress = silent,
) -> CrossValidation:
    """Dice coefficients of templates that were left out: for a choice between backbones or adapters.

    Two or more templates are left out one at a time, more than five in five groups. Where that leaves nothing to
    compare, as with a single template, a third of every template's labelled slices is left out at a time; to the
    fit these are slices of which nothing is known. The same arguments give the same result.

    Args:
        templates: labelled volumes, wholly or on a few slices.
        labels: which to find; by default all that were drawn.
        adapter: a key of ``ADAPTERS``.
        options: the adapter's settings that differ from its defaults.
        spec: how to cut volumes into slices; what it leaves open is decided from all templates, alike for all folds.
        seed: of every fit.
        progress: told the stages "features" (slices) and "folds".

    Raises:
        TooFewLabelsError: if no label is drawn in two templates, or on two slices of one.
        FewshotError: as ``fewshot.pipeline.fit`` does.
    """
    labels = label_names(templates) if labels is None else list(labels)
    spec = resolve(spec, [template.volume for template in templates], backbone) if templates else spec
    parts = []
    for template in templates:
        stack = SliceStack(template.volume, spec, patch=backbone.patch)
        parts.append(_Part(template, stack, bank.features(stack, backbone, progress=progress)))
    for folds in (list(_by_template(parts)), list(_by_slices(parts))):
        tally, fitted = _Tally(), 0
        for done, fold in enumerate(folds):
            progress("folds", done, len(folds))
            if wanted := _comparable(parts, fold, labels):
                model = fit(
                    [part.only(known) for part, known in zip(parts, fold.known, strict=True) if len(known)],
                    backbone=backbone,
                    bank=bank,
                    labels={name: value for value, name in enumerate(wanted, start=1)},
                    adapter=adapter,
                    options=options,
                    spec=spec,
                    seed=seed,
                )
                fitted += 1
                tally.add(parts, fold, model)
        progress("folds", len(folds), len(folds))
        if dice := tally.dice(labels):
            return CrossValidation(dice, float(np.mean(list(dice.values()))), fitted)
    raise TooFewLabelsError(
        "The templates cannot be compared with each other, for no label is drawn in two of them or on two slices of "
        "one; label more slices, or another study."
    )


class _Part:
    """A template with what can be seen of it: labelled slices that are not air."""

    def __init__(self, template: Template, stack: SliceStack, entry: BankEntry) -> None:
        self.template = template
        self.stack = stack
        self.entry = entry
        self.values = stack.slices(template.labels)  # [S, rows, cols]
        self.labelled = np.flatnonzero(self.values.any((1, 2)) & ~stack.air)

    def mask(self, label: str, slices: np.ndarray | int) -> np.ndarray:
        """Where a label is drawn on some slices, bool ``[len(slices), rows, cols]``, or on one, ``[rows, cols]``."""
        return self.values[slices] == self.template.names.get(label, -1)

    def only(self, known: np.ndarray) -> Template:
        """The template as if no other slices had been labelled."""
        if len(known) == len(self.labelled):
            return self.template
        values = np.zeros_like(self.values)
        values[known] = self.values[known]
        return replace(self.template, labels=self.stack.restore(values), complete=False)


@dataclass(frozen=True)
class _Fold:
    """For every template, the indices of slices to fit on and of slices to find."""

    known: list[np.ndarray]
    held: list[np.ndarray]


def _by_template(parts: list[_Part]) -> Iterator[_Fold]:
    count = min(MAX_FOLDS, len(parts))
    nothing = np.empty(0, np.int64)
    for fold in range(count if count > 1 else 0):
        out = [index % count == fold for index in range(len(parts))]
        yield _Fold(
            known=[nothing if left else part.labelled for left, part in zip(out, parts, strict=True)],
            held=[part.labelled if left else nothing for left, part in zip(out, parts, strict=True)],
        )


def _by_slices(parts: list[_Part]) -> Iterator[_Fold]:
    for fold in range(SLICE_FOLDS):
        held = [
            np.array_split(part.labelled, SLICE_FOLDS)[fold] if len(part.labelled) > 1 else part.labelled[:0]
            for part in parts
        ]
        known = [np.setdiff1d(part.labelled, out) for part, out in zip(parts, held, strict=True)]
        yield _Fold(known, held)


def _comparable(parts: list[_Part], fold: _Fold, labels: Sequence[str]) -> list[str]:
    """Labels that can be learned; none where nothing that is left out shows one of them."""

    def shown(label: str, slices: list[np.ndarray]) -> bool:
        return any(part.mask(label, chosen).any() for part, chosen in zip(parts, slices, strict=True))

    learned = [label for label in labels if shown(label, fold.known)]
    return learned if any(shown(label, fold.held) for label in learned) else []


class _Tally:
    """Pixels counted for every label and template, over all folds."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))

    def add(self, parts: list[_Part], fold: _Fold, model: Model) -> None:
        """Let a model find its labels on the slices that were left out."""
        for number, (part, held) in enumerate(zip(parts, fold.held, strict=True)):
            # a label that is not drawn in a template may still lie in it, anywhere
            drawn = [label for label in model.labels if part.mask(label, part.labelled).any()]
            ys, xs = (torch.as_tensor(axis) for axis in part.stack.patch_coordinates())
            for index in held.tolist():
                classes = (
                    model.adapter.predict(part.entry.of_slice(index)[None], ys, xs)[0].argmax(-1).numpy()
                )
                for label in drawn:
                    truth, found = part.mask(label, index), classes == model.labels[label]
                    areas = [np.count_nonzero(area) for area in (truth & found, truth, found)]
                    self._counts[label, number] += areas

    def dice(self, labels: Sequence[str]) -> dict[str, float]:
        """Per label, mean over the templates that show it; the slices of one template count together."""
        scores = {
            label: [
                2 * both / (truth + found)
                for (name, _), (both, truth, found) in self._counts.items()
                if name == label and truth
            ]
            for label in labels
        }
        return {label: float(np.mean(values)) for label, values in scores.items() if values}
