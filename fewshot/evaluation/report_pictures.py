"""The report's pictures: best, median and worst case of each label, contours drawn over the image as SVG.

The image of a case is stored once, however many methods are drawn on it: their contours are paths of which
the page shows one method's at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewshot.dataset import Dataset
from fewshot.evaluation.crops import PICTURE_PX, outline, packed, scale_bar, surroundings
from fewshot.evaluation.report_methods import Results
from fewshot.evaluation.store import prediction_path
from fewshot.evaluation.summary import method_of
from fewshot.pictures import EDGES, label_colour
from fewshot.volumes import SliceSpec, SliceStack, Volume, read_labels
from fewshot.volumes.windows import normalise

BUDGET = 4_500_000
"""Characters for all pictures, so that the whole report stays below 6 MB."""
ALL_SHOWN = 8
"""Up to so many labels are all shown; of more, three are, and the others unfold."""
RANKS = ("best", "median", "worst")
Found = tuple[str, int]
"""A prediction of a method: case and seed."""


@dataclass(frozen=True)
class Shape:
    """The contour of one label: SVG path data in units of the picture's view box."""

    name: str
    colour: str
    path: str
    focus: bool


@dataclass(frozen=True)
class Drawn:
    """One method's prediction in a picture; `dice` is None where the file is missing."""

    dice: str | None
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Picture:
    """One case of one label: image, truth, and the prediction of every method by name."""

    label: str
    rank: str
    case: str
    seed: int | None
    slice: str
    width: int
    height: int
    image: str
    edges: tuple[str, ...]
    scale: tuple[int, str] | None
    truth: str
    drawn: Mapping[str, Drawn]

    @property
    def size(self) -> int:
        """Characters that it takes in the page, nearly."""
        paths = sum(len(shape.path) + 120 for of in self.drawn.values() for shape in of.shapes)
        return len(self.image) + 2 * len(self.truth) + paths + 1200


def dice_by_label(results: Results, method: str) -> dict[str, dict[Found, float]]:
    """Label -> prediction -> Dice of a method, where the truth holds the label."""
    dice: dict[str, dict[Found, float]] = {}
    for row in results["rows"]:
        if method_of(row) == method and row["dice"] is not None:
            dice.setdefault(row["label"], {})[row["case"], row["seed"]] = row["dice"]
    return dice


def extremes(dice: Mapping[Found, float]) -> dict[str, Found]:
    """The predictions with the best, the median and the worst Dice, by rank; fewer where there are fewer."""
    order = sorted(dice, key=lambda found: (-dice[found], found))
    if not order:
        return {}
    ranks = {"best": order[0], "worst": order[-1], "median": order[len(order) // 2]}
    distinct = {found: rank for rank, found in reversed(ranks.items())}
    return {rank: ranks[rank] for rank in RANKS if distinct[ranks[rank]] == rank}


def label_order(dice: Mapping[str, Mapping[Found, float]]) -> tuple[list[str], int]:
    """Labels in the order of showing, and how many of them are shown unfolded.

    Args:
        dice: `dice_by_label` of the method that leads.
    """
    labels = [label for label, of in dice.items() if of]
    if len(labels) <= ALL_SHOWN:
        return labels, len(labels)
    ranked = sorted(labels, key=lambda label: float(np.mean(list(dice[label].values()))))
    picked = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    return picked + [label for label in labels if label not in picked], len(picked)


def make_pictures(
    folder: Path,
    dataset: Dataset,
    results: Results,
    methods: Sequence[str],
    dice: Mapping[str, Mapping[Found, float]],
    *,
    budget: int = BUDGET,
) -> dict[str, list[Picture]]:
    """Draw the extreme predictions of each label by the Dice of the first method; every case is read once a seed.

    Args:
        folder: the results, with the predictions.
        dataset: whose images and label maps are drawn.
        results: the content of results.json.
        methods: names, the leading one first.
        dice: `dice_by_label` of the leading method.
        budget: characters that all pictures may take; labels beyond are left out.

    Raises:
        FewshotError: an image, label map or prediction that is there cannot be read.

    Returns:
        Label -> pictures, in the order of `label_order`; without cases of which image or prediction is gone.
    """
    scores = _scores(results)
    wanted: dict[Found, list[tuple[str, str]]] = {}
    order, _ = label_order(dice)
    for label in order:
        for rank, found in extremes(dice[label]).items():
            wanted.setdefault(found, []).append((label, rank))
    made: dict[tuple[str, str], Picture] = {}
    for (case, seed), of in wanted.items():
        if case not in dataset.labelled or not prediction_path(folder, methods[0], case, seed).is_file():
            continue
        study = _Study(folder, dataset, results, methods, case, seed)
        for label, rank in of:
            of_label = {name: scores.get((name, label, case, seed)) for name in methods}
            made[label, rank] = study.draw(label, rank if len(dice[label]) > 1 else "only case", of_label)
    kept: dict[str, list[Picture]] = {}
    for label in order:
        drawn = [made[label, rank] for rank in RANKS if (label, rank) in made]
        budget -= sum(picture.size for picture in drawn)
        if budget < 0:
            break
        if drawn:
            kept[label] = drawn
    return kept


class _Study:
    """One case as slices: image, truth and the predictions of all methods."""

    def __init__(
        self, folder: Path, dataset: Dataset, results: Results, methods: Sequence[str], case: str, seed: int
    ) -> None:
        self.case = case
        self.seed = seed if len(results["seeds"]) > 1 else None
        self.names: dict[str, int] = results["settings"]["labels"]
        self.volume = dataset.volume(dataset.cases[case])
        spec = SliceSpec.from_dict(results["settings"]["spec"])
        self.stack = SliceStack(self.volume, replace(spec, pixel_mm=None), patch=1)
        truth = dataset.label_map(dataset.cases[case], self.volume)
        self.truth = self.stack.slices(truth)
        self.found: dict[str, np.ndarray | None] = {
            name: _predicted(prediction_path(folder, name, case, seed), self.volume, self.stack)
            for name in methods
        }

    def draw(self, label: str, rank: str, dice: Mapping[str, float | None]) -> Picture:
        """The slice on which the truth of a label is largest, cropped to its surroundings."""
        value = self.names[label]
        number = int((self.truth == value).sum(axis=(1, 2)).argmax())
        _, row_mm, col_mm = (float(step) for step in np.linalg.norm(self.stack.affine[:3, :3], axis=0))
        rows, cols = surroundings(self.truth[number] == value, (row_mm, col_mm))
        image = normalise(self.stack.slices(self.volume.array)[number, rows, cols], self.stack.limits)
        high, wide = (image.shape[0] * row_mm, image.shape[1] * col_mm)
        per_mm = PICTURE_PX / max(high, wide)
        size = (max(1, round(wide * per_mm)), max(1, round(high * per_mm)))
        return Picture(
            label=label,
            rank=rank,
            case=self.case,
            seed=self.seed,
            slice=f"{self.stack.plane} slice {number + 1} of {len(self.stack)}"
            if len(self.stack) > 1
            else "",
            width=size[0],
            height=size[1],
            image=packed(image, size),
            edges=EDGES[self.stack.plane] if self.volume.calibrated else (),
            scale=scale_bar(size[0], per_mm) if self.volume.calibrated else None,
            truth=outline(self.truth[number, rows, cols] == value, size),
            drawn={
                name: Drawn(None, ())
                if found is None
                else Drawn(
                    "–" if dice[name] is None else f"{dice[name]:.2f}",
                    tuple(self._shapes(found[number, rows, cols], label, size)),
                )
                for name, found in self.found.items()
            },
        )

    def _shapes(self, labels: np.ndarray, focus: str, size: tuple[int, int]) -> Iterable[Shape]:
        """The labels in a crop, the one that matters last, so that it lies on top."""
        there = set(np.unique(labels).tolist())
        for name, value in sorted(self.names.items(), key=lambda item: item[0] == focus):
            if value in there:
                yield Shape(name, label_colour(value), outline(labels == value, size), name == focus)


def _scores(results: Results) -> dict[tuple[str, str, str, int], float | None]:
    """(method, label, case, seed) -> Dice."""
    return {(method_of(row), row["label"], row["case"], row["seed"]): row["dice"] for row in results["rows"]}


def _predicted(path: Path, volume: Volume, stack: SliceStack) -> np.ndarray | None:
    return stack.slices(read_labels(path, volume)) if path.is_file() else None
