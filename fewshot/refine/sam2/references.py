"""Slices of the templates that SAM 2 has seen before it looks at another volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from fewshot.refine.encoding import Embeddings
from fewshot.refine.sam2.tracking import Reference
from fewshot.volumes import SliceSpec, SliceStack

if TYPE_CHECKING:
    from fewshot.support import Template

QUARTERS = (1 / 4, 3 / 4)
"""Where the slices lie that are taken after a template's largest one, as parts of the label's extent."""


def references(
    templates: Sequence[Template],
    name: str,
    count: int,
    spec: SliceSpec,
    embeddings: Callable[[SliceStack], Embeddings],
) -> list[tuple[str, Reference]]:
    """Slices of templates with the mask of a label.

    Every template gives its slice with the largest area before one gives another.

    Args:
        templates: all that there are.
        name: of the label.
        count: most slices.
        spec: plane and window of the volume that is to be refined.
        embeddings: of the slices of a stack.

    Returns:
        Where each is from (volume and slice), and the slice.
    """
    offered = [
        [(stack, masks, index) for index in _telling(masks)]
        for stack, masks in _masks_of(templates, name, spec)
    ]
    chosen = [each for rank in zip_longest(*offered) for each in rank if each is not None][:count]
    found = []
    for stack, masks, index in chosen:
        of = embeddings(stack)
        reference = Reference(of.of_slice(index), of.frame, masks[index])
        found.append((f"{stack.volume.name} slice {index}", reference))
    return found


def _masks_of(
    templates: Sequence[Template], name: str, spec: SliceSpec
) -> Iterator[tuple[SliceStack, np.ndarray]]:
    for template in templates:
        value = template.names.get(name)
        if value in template.values:
            stack = SliceStack(template.volume, spec, patch=1)
            yield stack, stack.slices(template.labels) == value


def _telling(masks: np.ndarray) -> list[int]:
    """Slices that tell most about a structure, best first: its largest, and some of its ends."""
    areas = masks.sum(axis=(1, 2))
    drawn = np.flatnonzero(areas)
    others = [int(drawn[round(part * (len(drawn) - 1))]) for part in QUARTERS]
    return list(dict.fromkeys([int(areas.argmax()), *others]))
