"""Overlay pictures: labels drawn over the slices that they were found in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewshot.errors import FewshotError
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2",
    "#EE8866", "#99DDFF", "#BBCC33", "#FFAABB", "#77AADD",
)  # fmt: skip
"""Colours that stay apart for colour-blind readers: Okabe and Ito's, then Paul Tol's light scheme."""

EDGES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""What lies at the left, right, upper and lower edge of a slice of each plane."""

PLACES = (
    ((0.01, 0.5), "left", "center"),
    ((0.99, 0.5), "right", "center"),
    ((0.5, 0.99), "center", "top"),
    ((0.5, 0.01), "center", "bottom"),
    ((0.01, 0.99), "left", "top"),
)
"""Where the letters of EDGES and the caption stand in a panel."""

INK, GROUND = "#E8E8E8", "#111111"
PANEL_INCHES = 2.6
DEEP = 8
"""From this many slices on, a plane across them shows something."""


@dataclass(frozen=True)
class _Panel:
    """One slice to draw: image and label maps [rows, cols] in stack pixels."""

    image: np.ndarray
    labels: np.ndarray
    truth: np.ndarray | None
    caption: str
    edges: tuple[str, ...]
    pixel_mm: float | None


def overlay(
    volume: Volume,
    labels: np.ndarray,
    names: Mapping[str, int],
    path: str | Path,
    *,
    truth: np.ndarray | None = None,
    scores: Mapping[str, float | None] | None = None,
    title: str = "",
    spec: SliceSpec | None = None,
    slices: int = 6,
) -> Path:
    """Draw labels as filled contours on several slices and on one reformatted plane, as a PNG file.

    The slices are spread over the part of the volume that holds labels; patient right is on the
    left. Labels keep their colour from picture to picture: it follows from the value.

    Args:
        volume: the image.
        labels: label map [X, Y, Z] on the volume's grid.
        names: label name -> value in `labels` and `truth`.
        path: the PNG file to write; its folder is made.
        truth: reference label map [X, Y, Z], drawn as dashed white contours.
        scores: Dice per label name, shown in the legend; None is shown as a dash.
        title: the heading.
        spec: plane and window to show; as in the model that made the labels, else chosen from the volume.
        slices: how many slices of the main plane, at most.

    Raises:
        FewshotError: the label maps do not fit the volume.

    Returns:
        The path written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for array in (labels, truth):
        if array is not None and array.shape != volume.array.shape:
            raise FewshotError(
                f"Labels of shape {array.shape} cannot be drawn on {volume.name or 'a volume'} of shape "
                f"{volume.array.shape}: resample them onto the image first."
            )
    main, across = _panels(volume, labels, names, truth, spec, slices)
    figure = _layout(main, across, title, _handles(names, scores, with_truth=truth is not None), names)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.png")
    FigureCanvasAgg(figure).print_png(partial)
    os.replace(partial, target)
    return target


def label_colour(value: int) -> str:
    """The colour of a label value, the same in every picture."""
    return PALETTE[(value - 1) % len(PALETTE)]


def spread(candidates: Sequence[int], count: int) -> list[int]:
    """At most `count` of the candidates, evenly spread and away from both ends."""
    if len(candidates) <= count:
        return list(candidates)
    picks = (np.arange(count) + 0.5) * len(candidates) / count
    return [candidates[int(pick)] for pick in picks]


def _panels(
    volume: Volume,
    labels: np.ndarray,
    names: Mapping[str, int],
    truth: np.ndarray | None,
    spec: SliceSpec | None,
    slices: int,
) -> tuple[list[_Panel], _Panel | None]:
    """The slices of the main plane, and one slice across them where the volume is deep enough."""
    shown = np.isin(labels, list(names.values()))
    if truth is not None:
        shown |= np.isin(truth, list(names.values()))
    spec = resolve_spec(spec or SliceSpec(size=320), [volume])
    stack = SliceStack(volume, spec, patch=1)
    held = np.flatnonzero(stack.slices(shown).any(axis=(1, 2))).tolist()
    main = _cut(stack, spread(held or range(len(stack)), slices), labels, truth)
    if len(stack) < DEEP:
        return main, None
    across = SliceStack(
        volume, replace(spec, plane="axial" if stack.plane == "coronal" else "coronal"), patch=1
    )
    richest = int(across.slices(shown).sum(axis=(1, 2)).argmax()) if held else len(across) // 2
    return main, _cut(across, [richest], labels, truth)[0]


def _cut(
    stack: SliceStack, numbers: Sequence[int], labels: np.ndarray, truth: np.ndarray | None
) -> list[_Panel]:
    """The panels of these slices."""
    rows, cols = stack.content
    drawn = stack.to_pixels(labels)
    expected = None if truth is None else stack.to_pixels(truth)
    return [
        _Panel(
            image=image[:rows, :cols],
            labels=drawn[number, :rows, :cols],
            truth=None if expected is None else expected[number, :rows, :cols],
            caption=f"{stack.plane} {number + 1}/{len(stack)}" if len(stack) > 1 else "",
            edges=EDGES[stack.plane],
            pixel_mm=stack.spec.pixel_mm,
        )
        for number, image in zip(numbers, stack.render(numbers), strict=True)
    ]


def _layout(
    main: list[_Panel],
    across: _Panel | None,
    title: str,
    handles: list[Patch | Line2D],
    names: Mapping[str, int],
) -> Figure:
    """Rows of slices, the reformatted plane beside them, the legend below."""
    from matplotlib.figure import Figure

    rows = 1 if len(main) <= 3 else 2
    columns = -(-len(main) // rows)
    height, width = main[0].image.shape
    ratios = [width / height] * columns
    if across is not None:
        tall, wide = across.image.shape
        ratios.append(min(rows * wide / tall, 2.2 * width / height))
    wide_inches = max(PANEL_INCHES * sum(ratios), 4.5)
    per_line = max(1, min(len(handles), int(wide_inches / 1.4)))
    bottom = 0.2 + 0.22 * -(-len(handles) // per_line)
    high = PANEL_INCHES * rows + 0.4 + bottom
    figure = Figure(figsize=(wide_inches, high), dpi=110, facecolor=GROUND)
    grid = figure.add_gridspec(
        rows, len(ratios), width_ratios=ratios, wspace=0.02, hspace=0.02,
        left=0.005, right=0.995, bottom=bottom / high, top=1 - 0.4 / high,
    )  # fmt: skip
    for i, panel in enumerate(main):
        _draw(figure.add_subplot(grid[i // columns, i % columns]), panel, names)
    if across is not None:
        _draw(figure.add_subplot(grid[:, -1]), across, names)
    figure.suptitle(title, color=INK, fontsize=11, y=1 - 0.12 / high)
    figure.legend(
        handles=handles, loc="lower center", ncols=per_line, frameon=False, fontsize=8, labelcolor=INK,
        bbox_to_anchor=(0.5, 0.0), handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _draw(axes: Axes, panel: _Panel, names: Mapping[str, int]) -> None:
    """One slice: image, labels, truth, what lies at its edges, and a scale."""
    from matplotlib.patheffects import withStroke

    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    for value in names.values():
        inside = (panel.labels == value).astype(float)
        if inside.any() and inside.size > inside.sum():
            axes.contourf(inside, levels=[0.5, 1.5], colors=[label_colour(value)], alpha=0.28)
            axes.contour(inside, levels=[0.5], colors=[label_colour(value)], linewidths=1.2)
        if panel.truth is not None:
            expected = (panel.truth == value).astype(float)
            if expected.any() and expected.size > expected.sum():
                axes.contour(expected, levels=[0.5], colors="white", linewidths=0.7, linestyles="dashed")
    axes.set_axis_off()
    halo = [withStroke(linewidth=1.5, foreground=GROUND)]
    for text, ((x, y), ha, va) in zip((*panel.edges, panel.caption), PLACES, strict=True):
        axes.text(
            x, y, text, ha=ha, va=va, color=INK, fontsize=7, path_effects=halo, transform=axes.transAxes
        )  # fmt: skip
    if panel.pixel_mm:
        _scale_bar(axes, panel)


def _scale_bar(axes: Axes, panel: _Panel) -> None:
    """A bar of a round length, about a fifth of the panel's width."""
    rows, cols = panel.image.shape
    wanted = cols * float(panel.pixel_mm or 1) / 5
    length = max((step for step in (1, 2, 5, 10, 20, 50, 100) if step <= wanted), default=1)
    right, low = cols * 0.96, rows * 0.95
    axes.plot([right - length / float(panel.pixel_mm or 1), right], [low, low], color=INK, linewidth=1.5)
    axes.text(right, low - rows * 0.015, f"{length} mm", color=INK, fontsize=6, ha="right", va="bottom")


def _handles(
    names: Mapping[str, int], scores: Mapping[str, float | None] | None, *, with_truth: bool
) -> list[Patch | Line2D]:
    """The legend's entries: one per label, with its score, and one for the truth."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = []
    for name, value in names.items():
        score = "" if scores is None else _scored(scores.get(name))
        colour = label_colour(value)
        handles.append(Patch(facecolor=(colour, 0.35), edgecolor=colour, label=name + score))
    if with_truth:
        handles.append(Line2D([], [], color="white", linewidth=0.9, linestyle="dashed", label="truth"))
    return handles


def _scored(score: float | None) -> str:
    return "  –" if score is None else f"  {score:.2f}"
