"""Prompts in native pixels -> what SAM's prompt encoder wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewshot.errors import FewshotError
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Frame

OUTSIDE = -10.0
"""Logit of a mask prompt where the image has no content."""

Kind = tuple[int, bool, bool]
"""Number of points, whether there is a box, whether there is a mask."""


def by_kind(prompts: Sequence[Prompt]) -> dict[Kind, list[int]]:
    """Indices of prompts that can be decoded in one batch: of as many points, with or without box and mask.

    SAM would fill up missing points with points labelled -1, but these change the mask a little; so what is found for
    an object never depends on the others that are prompted for.

    Raises:
        FewshotError: for a prompt that says nothing.
    """
    groups: dict[Kind, list[int]] = {}
    for index, prompt in enumerate(prompts):
        kind = (len(prompt.points), prompt.box is not None, prompt.mask is not None)
        if not any(kind):
            raise FewshotError("A prompt has no point, box or mask; give one of them.")
        groups.setdefault(kind, []).append(index)
    return groups


def to_image(positions: np.ndarray, frame: Frame) -> np.ndarray:
    """Native (row, col) ``[..., 2]`` -> (x, y) in the model's image; both count from pixels' centres."""
    scale = np.array(frame.content) / np.array(frame.native)
    return ((positions + 0.5) * scale - 0.5)[..., ::-1]


def points_of(prompts: Sequence[Prompt], frame: Frame, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Positions ``[P, N, 2]`` and labels ``[P, N]`` of prompts of the same number of points; None without points."""
    if not len(prompts[0].points):
        return None
    positions = to_image(np.stack([np.asarray(prompt.points, np.float64) for prompt in prompts]), frame)
    labels = np.stack([np.asarray(prompt.labels) for prompt in prompts])
    return (
        torch.as_tensor(positions.copy(), dtype=torch.float32, device=device),
        torch.as_tensor(labels, dtype=torch.int32, device=device),
    )


def boxes_of(prompts: Sequence[Prompt], frame: Frame, device: torch.device) -> Tensor | None:
    """Boxes ``[P, 4]``, (x0, y0, x1, y1), or None."""
    if prompts[0].box is None:
        return None
    corners = np.array([prompt.box for prompt in prompts], np.float64).reshape(-1, 2, 2)
    return torch.as_tensor(to_image(corners, frame).reshape(-1, 4), dtype=torch.float32, device=device)


def masks_of(
    prompts: Sequence[Prompt], frame: Frame, size: int, side: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Rough masks ``[P, 1, *side]`` on the low resolution that the prompt encoder wants, or None.

    Args:
        size: pixels of the model's square image.
        side: rows and columns of a mask prompt.
    """
    if prompts[0].mask is None:
        return None
    native = torch.as_tensor(
        np.stack([np.asarray(prompt.mask) for prompt in prompts]), dtype=torch.float32, device=device
    )
    content = functional.interpolate(
        native[:, None], frame.content, mode="bilinear", align_corners=False, antialias=True
    )
    rows, cols = frame.content
    square = functional.pad(content, (0, size - cols, 0, size - rows), value=OUTSIDE)
    return functional.interpolate(square, side, mode="bilinear", align_corners=False, antialias=True)


def to_native(logits: Tensor, frame: Frame, size: int) -> Tensor:
    """Low-resolution logits ``[P, M, h, w]`` -> the native slice, as SAM does it: scaled up, cropped, scaled."""
    whole = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    content = whole[..., : frame.content[0], : frame.content[1]]
    if frame.native == frame.content:
        return content
    return functional.interpolate(content, frame.native, mode="bilinear", align_corners=False)
