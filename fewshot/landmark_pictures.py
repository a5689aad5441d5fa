"""Pictures of landmarks: all of them seen through the volume, and each one in its slice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewshot.landmarks import LandmarkPrediction
from fewshot.landmarks.template import Point
from fewshot.pictures import EDGES, GROUND, INK, PLACES, label_colour
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 360
"""Pixels of a slice's longer side."""
CHUNK = 16
"""Slices that are rendered at once."""
CROPS, CROPS_PER_ROW = 32, 8
CROP_SHARE = 0.11
"""Half a crop's side as a share of the slice's longer side."""
SHORT = 4
"""Characters of a name that fits beside its point; where one is longer, points have numbers."""
CONTRAST = (1.0, 99.5)
"""Percentiles of a projection that are black and white."""
WIDE, HIGHEST, CROP_INCHES, LINE_INCHES = 11.0, 6.0, 1.36, 0.17


@dataclass(frozen=True)
class _Shown:
    """A landmark in a picture: what stands at its point, its entry below, its colour."""

    name: str
    tag: str
    entry: str
    colour: str


def landmark_overlay(
    volume: Volume,
    prediction: LandmarkPrediction,
    path: str | Path,
    *,
    truth: Mapping[str, Point] | None = None,
    title: str = "",
    spec: SliceSpec | None = None,
) -> Path:
    """Draw landmarks on the mean of all slices of each plane, and the first 32 each in its own slice, as a PNG file.

    Args:
        volume: the image.
        prediction: its landmarks; those that were not found are listed as such.
        path: the PNG file to write; its folder is made.
        truth: where they should be, RAS+ mm; drawn as white crosses, with a line to the point.
        title: the heading.
        spec: plane and window to show; else chosen from the volume.

    Returns:
        The path written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    spec = resolve_spec(replace(spec or SliceSpec(), size=SIZE, pixel_mm=None), [volume])
    figure = _figure(volume, prediction, truth or {}, title, spec)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.png")
    FigureCanvasAgg(figure).print_png(partial)
    os.replace(partial, target)
    return target


def _figure(
    volume: Volume,
    prediction: LandmarkPrediction,
    truth: Mapping[str, Point],
    title: str,
    spec: SliceSpec,
) -> Figure:
    """The projections, the crops below, the names at the bottom."""
    from matplotlib.figure import Figure

    shown = _shown(prediction)
    planes = [spec.plane] if 1 in volume.shape else [*EDGES]
    stacks = [SliceStack(volume, replace(spec, plane=plane), patch=1) for plane in planes]
    ratios = [stack.content[1] / stack.content[0] for stack in stacks]
    crops = [of for of in shown if of.name in prediction.points][:CROPS]
    crop_rows = -(-len(crops) // CROPS_PER_ROW)
    columns = max(
        1, min(len(shown), int(WIDE / (0.075 * max((len(of.entry) for of in shown), default=1) + 0.2)))
    )
    lines = -(-len(shown) // columns)
    top, middle, bottom = min(WIDE / sum(ratios), HIGHEST), crop_rows * CROP_INCHES, lines * LINE_INCHES + 0.1
    high = 0.4 + top + middle + bottom
    figure = Figure(figsize=(WIDE, high), dpi=110, facecolor=GROUND)
    figure.suptitle(title, color=INK, fontsize=11, y=1 - 0.12 / high)
    upper = figure.add_gridspec(
        1, len(stacks), width_ratios=ratios, wspace=0.02,
        left=0.005, right=0.995, top=1 - 0.4 / high, bottom=(middle + bottom) / high,
    )  # fmt: skip
    for column, stack in enumerate(stacks):
        _draw_projection(figure.add_subplot(upper[0, column]), stack, shown, prediction.points, truth)
    if crops:
        lower = figure.add_gridspec(
            crop_rows, CROPS_PER_ROW, wspace=0.04, hspace=0.04,
            left=0.005, right=0.995, top=(middle + bottom) / high - 0.004, bottom=bottom / high,
        )  # fmt: skip
        main = stacks[planes.index(spec.plane)]
        for index, of in enumerate(crops):
            axes = figure.add_subplot(lower[index // CROPS_PER_ROW, index % CROPS_PER_ROW])
            _draw_crop(axes, main, of, prediction.points[of.name], truth.get(of.name))
    for index, of in enumerate(shown):
        column, line = divmod(index, lines)
        figure.text(
            0.01 + 0.98 * column / columns, (bottom - 0.05 - line * LINE_INCHES) / high, of.entry,
            color=of.colour, fontsize=7, va="top",
        )  # fmt: skip
    return figure


def _shown(prediction: LandmarkPrediction) -> list[_Shown]:
    numbered = any(len(name) > SHORT for name in prediction.landmarks)
    shown = []
    for number, (name, of) in enumerate(prediction.landmarks.items(), start=1):
        said = f"{of.confidence:.2f}" if of.found else "not found"
        entry = f"{number}  {name}  {said}" if numbered else f"{name}  {said}"
        colour = label_colour(number) if of.found else "#888888"
        shown.append(_Shown(name, str(number) if numbered else name, entry, colour))
    return shown


def _draw_projection(
    axes: Axes,
    stack: SliceStack,
    shown: list[_Shown],
    points: Mapping[str, Point],
    truth: Mapping[str, Point],
) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=1.5, foreground=GROUND)]
    _show(axes, _mean(stack))
    for of in shown:
        if of.name not in points:
            continue
        _, row, col = _pixel(stack, points[of.name])
        if of.name in truth:
            _, true_row, true_col = _pixel(stack, truth[of.name])
            axes.plot([col, true_col], [row, true_row], color="white", linewidth=0.6)
            axes.plot(true_col, true_row, "+", color="white", markersize=4, markeredgewidth=0.7)
        axes.plot(col, row, "o", color=of.colour, markersize=3.2, markeredgecolor=GROUND, markeredgewidth=0.4)
        axes.annotate(
            of.tag, (col, row), (2.5, 2.0), textcoords="offset points", color=of.colour, fontsize=6,
            path_effects=halo, clip_on=True,
        )  # fmt: skip
    caption = stack.plane if len(stack) > 1 else ""
    for text, ((x, y), ha, va) in zip((*EDGES[stack.plane], caption), PLACES, strict=True):
        axes.text(
            x, y, text, ha=ha, va=va, color=INK, fontsize=7, path_effects=halo, transform=axes.transAxes
        )  # fmt: skip


def _draw_crop(axes: Axes, stack: SliceStack, of: _Shown, point: Point, truth: Point | None) -> None:
    """The slice through a landmark, around it; an open cross leaves its place itself to be seen."""
    from matplotlib.patheffects import Normal, withStroke

    number, row, col = _pixel(stack, point)
    rows, cols = stack.content
    nearest = min(max(round(number), 0), len(stack) - 1)
    _show(axes, stack.render([nearest])[0, :rows, :cols])
    half = CROP_SHARE * max(rows, cols)
    axes.set_xlim(col - half, col + half)
    axes.set_ylim(row + half, row - half)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        axes.plot(
            [col + 0.12 * half * dx, col + 0.4 * half * dx],
            [row + 0.12 * half * dy, row + 0.4 * half * dy],
            color=of.colour,
            linewidth=1.0,
            path_effects=[withStroke(linewidth=1.8, foreground=GROUND, alpha=0.6), Normal()],
        )
    if truth is not None:
        _, true_row, true_col = _pixel(stack, truth)
        axes.plot(true_col, true_row, "+", color="white", markersize=6, markeredgewidth=0.8)
    axes.text(
        0.03, 0.97, of.tag, color=of.colour, fontsize=7, ha="left", va="top", transform=axes.transAxes,
        path_effects=[withStroke(linewidth=1.8, foreground=GROUND)],
    )  # fmt: skip


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    axes.set_axis_off()


def _mean(stack: SliceStack) -> np.ndarray:
    """The mean of all slices, float32 [rows, cols] in [0, 1]."""
    rows, cols = stack.content
    total = np.zeros((rows, cols), np.float64)
    for start in range(0, len(stack), CHUNK):
        numbers = range(start, min(start + CHUNK, len(stack)))
        total += stack.render(numbers)[:, :rows, :cols].sum(0)
    if len(stack) == 1:
        return total.astype(np.float32)
    low, high = np.percentile(total, CONTRAST)
    return np.clip((total - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)


def _pixel(stack: SliceStack, point: Point) -> tuple[float, float, float]:
    number, row, col = (float(value) for value in stack.locate(np.array([point]))[0])
    return number, row, col
