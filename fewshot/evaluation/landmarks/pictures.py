"""The report's pictures: whole cases in projection, and each landmark on its slice, with truth and answer as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewshot.dataset import Dataset
from fewshot.evaluation.crops import PICTURE_PX, packed, scale_bar
from fewshot.evaluation.landmarks.views import WHOLE
from fewshot.evaluation.report_pictures import RANKS, Found, extremes
from fewshot.pictures import EDGES
from fewshot.volumes import SliceSpec, SliceStack
from fewshot.volumes.planes import PLANES
from fewshot.volumes.windows import normalise

BUDGET = 4_500_000
"""Characters for all pictures, so that the whole report stays below 6 MB."""
AROUND = 0.4
"""The side of a landmark's picture, as a share of the slice's longer side."""
DEEP = 8
"""From this many slices on, projections across them show something."""
CONTRAST = (1.0, 99.7)
"""Percentiles of a projection that are black and white."""

UNITS = ("mm", "px")
"""Of an error, the first that is known."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Dot:
    """One landmark in a picture, in its pixels; `found` is None where nothing was found."""

    title: str
    truth: tuple[float, float]
    found: tuple[float, float] | None
    hit: bool


@dataclass(frozen=True)
class Picture:
    """An image, and per method what it found there."""

    title: str
    rank: str
    case: str
    seed: int | None
    slice: str
    width: int
    height: int
    image: str
    edges: tuple[str, ...]
    scale: tuple[int, str] | None
    dots: Mapping[str, tuple[Dot, ...]]
    captions: Mapping[str, str]
    large: bool = False

    @property
    def size(self) -> int:
        """Characters that it takes in the page, nearly."""
        return len(self.image) + 300 * sum(map(len, self.dots.values())) + 1200


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report.

    Attributes:
        cases: rank -> projections of one case.
        landmarks: name -> best, median and worst answer of the leading method.
        left_out: how many landmarks had no room.
    """

    cases: dict[str, list[Picture]]
    landmarks: dict[str, list[Picture]]
    left_out: int = 0


def cost(rows: Sequence[Row]) -> float:
    """How bad answers are, for ranking: mean error, where a landmark that was missed is worse than any error."""
    errors = [row["error_px"] for row in rows]
    return float(np.mean([1e4 if error is None else error for error in errors]))


def make_pictures(
    dataset: Dataset, results: Mapping[str, Any], methods: Sequence[str], *, budget: int = BUDGET
) -> Pictures:
    """Draw the extreme cases, and of each landmark the extreme answers, of the first method.

    Raises:
        FewshotError: an image that is there cannot be read.
    """
    rows = [row for row in results["rows"] if row["view"] == WHOLE and row["present"]]
    by_place: dict[Found, dict[str, dict[str, Row]]] = {}
    for row in rows:
        of = by_place.setdefault((row["case"], row["seed"]), {})
        of.setdefault(row["landmark"], {})[row["adapter"]] = row
    lead = methods[0] if methods else ""
    led = {
        place: {name: told[lead] for name, told in of.items() if lead in told}
        for place, of in by_place.items()
        if place[0] in dataset.cases
    }
    led = {place: of for place, of in led.items() if of}
    ranked = extremes({place: -cost([*of.values()]) for place, of in led.items()})
    names = list(dict.fromkeys(row["landmark"] for row in rows))
    wanted: dict[Found, list[tuple[str, str]]] = {place: [] for place in ranked.values()}
    counts = {}
    for name in names:
        costs = {place: -cost([of[name]]) for place, of in led.items() if name in of}
        counts[name] = len(costs)
        for rank, place in extremes(costs).items():
            wanted.setdefault(place, []).append((name, rank))
    cases: dict[str, list[Picture]] = {}
    made: dict[tuple[str, str], Picture] = {}
    for place, asked in wanted.items():
        study = _Study(dataset, results, methods, place, by_place[place])
        for rank, ranked_place in ranked.items():
            if ranked_place == place:
                cases[rank] = study.projections(rank if len(led) > 1 else "only case")
        for name, rank in asked:
            made[name, rank] = study.landmark(name, rank if counts[name] > 1 else "only case")
    budget -= sum(picture.size for of_case in cases.values() for picture in of_case)
    kept: dict[str, list[Picture]] = {}
    for name in sorted(names, key=lambda name: -_worst(led, name)):
        drawn = [made[name, rank] for rank in RANKS if (name, rank) in made]
        budget -= sum(picture.size for picture in drawn)
        if budget < 0:
            break
        if drawn:
            kept[name] = drawn
    return Pictures({rank: cases[rank] for rank in RANKS if rank in cases}, kept, len(names) - len(kept))


def _worst(led: Mapping[Found, Mapping[str, Row]], name: str) -> float:
    answers = [of[name] for of in led.values() if name in of]
    return cost(answers) if answers else -1.0


class _Study:
    """One case: its image, and what all methods say of its landmarks."""

    def __init__(
        self,
        dataset: Dataset,
        results: Mapping[str, Any],
        methods: Sequence[str],
        place: Found,
        told: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self.case, seed = place
        self.seed = seed if len(results["seeds"]) > 1 else None
        self.methods = methods
        self.told = told
        self.volume = dataset.volume(dataset.cases[self.case])
        self.spec = replace(SliceSpec.from_dict(results["settings"]["spec"]), pixel_mm=None)
        self.stack = SliceStack(self.volume, self.spec, patch=1)

    def projections(self, rank: str) -> list[Picture]:
        """The whole case from all sides; a picture, or a few slices, from one."""
        if len(self.stack) < DEEP:
            return [self._projection(self.stack, rank)]
        planes = [plane for plane in PLANES if plane != "auto"]
        return [
            self._projection(SliceStack(self.volume, replace(self.spec, plane=plane), patch=1), rank)
            for plane in planes
        ]

    def _projection(self, stack: SliceStack, rank: str) -> Picture:
        shown = normalise(stack.slices(self.volume.array), stack.limits).mean(axis=0)
        low, high = np.percentile(shown, CONTRAST)
        shown = np.clip((shown - low) / max(high - low, 1e-6), 0, 1)
        names = list(self.told)
        return self._picture(stack, shown, (0, 0), names, stack.plane, rank, "", self._of_case)

    def landmark(self, name: str, rank: str) -> Picture:
        """The slice through a landmark, cropped to its surroundings."""
        truth = next(iter(self.told[name].values()))["truth"]
        where = _native(self.stack, truth)
        number = int(np.clip(round(where[0]), 0, len(self.stack) - 1))
        _, row_mm, col_mm = (float(step) for step in np.linalg.norm(self.stack.affine[:3, :3], axis=0))
        side = AROUND * max(self.stack.native[0] * row_mm, self.stack.native[1] * col_mm)
        parts, starts = [slice(number, number + 1)], []
        for at, step, count in zip(where[1:], (row_mm, col_mm), self.stack.native, strict=True):
            long = min(count, max(1, round(side / step)))
            start = min(max(0, round(at - long / 2)), count - long)
            parts.append(slice(start, start + long))
            starts.append(start)
        image = normalise(self.stack.slices(self.volume.array)[tuple(parts)][0], self.stack.limits)
        said = f"{self.stack.plane} slice {number + 1} of {len(self.stack)}" if len(self.stack) > 1 else ""

        def caption(method: str) -> str:
            return self._of_landmark(name, method, number)

        return self._picture(
            self.stack, image, (starts[0], starts[1]), [name], name, rank, said, caption, large=True
        )

    def _picture(
        self,
        stack: SliceStack,
        image: np.ndarray,
        start: tuple[int, int],
        names: Sequence[str],
        title: str,
        rank: str,
        said: str,
        caption: Any,
        *,
        large: bool = False,
    ) -> Picture:
        _, row_mm, col_mm = (float(step) for step in np.linalg.norm(stack.affine[:3, :3], axis=0))
        high, wide = image.shape[0] * row_mm, image.shape[1] * col_mm
        per_mm = PICTURE_PX / max(high, wide)
        size = (max(1, round(wide * per_mm)), max(1, round(high * per_mm)))

        def at(point: Sequence[float]) -> tuple[float, float]:
            _, row, col = _native(stack, point)
            return (
                round((col - start[1] + 0.5) * col_mm * per_mm, 1),
                round((row - start[0] + 0.5) * row_mm * per_mm, 1),
            )

        def dot(name: str, row: Row) -> Dot:
            found = at(row["point"]) if row["point"] else None
            return Dot(f"{name}: {_error(row)}", at(row["truth"]), found, bool(row["hit_10px"]))

        return Picture(
            title=title,
            rank=rank,
            case=self.case,
            seed=self.seed,
            slice=said,
            width=size[0],
            height=size[1],
            image=packed(image, size),
            edges=EDGES[stack.plane] if self.volume.calibrated else (),
            scale=scale_bar(size[0], per_mm) if self.volume.calibrated else None,
            dots={
                method: tuple(
                    dot(name, self.told[name][method]) for name in names if method in self.told[name]
                )
                for method in self.methods
            },
            captions={method: caption(method) for method in self.methods},
            large=large,
        )

    def _of_case(self, method: str) -> str:
        rows = [of[method] for of in self.told.values() if method in of]
        if not rows:
            return "no prediction"
        said = f"{sum(row['found'] for row in rows)} of {len(rows)} found"
        for unit in UNITS:
            if errors := [row[f"error_{unit}"] for row in rows if row[f"error_{unit}"] is not None]:
                return f"{said}, mean error {np.mean(errors):.1f} {unit}"
        return said

    def _of_landmark(self, name: str, method: str, number: int) -> str:
        row = self.told[name].get(method)
        if row is None:
            return "no prediction"
        if not row["point"]:
            return _error(row)
        away = abs(round(_native(self.stack, row["point"])[0]) - number)
        return _error(row) + (f", {away} slice{'s' * (away != 1)} away" if away else "")


def _error(row: Row) -> str:
    for unit in UNITS:
        if (error := row[f"error_{unit}"]) is not None:
            return f"{error:.1f} {unit}"
    return "not found"


def _native(stack: SliceStack, point: Sequence[float]) -> np.ndarray:
    """RAS+ mm as slice, row and column of the volume's own slices."""
    return np.asarray((np.linalg.inv(stack.affine) @ [*point, 1.0])[:3])
