"""What SAM 2 follows through a volume: three-dimensional components of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.ndimage import find_objects

from fewshot.refine.base import Region


@dataclass(frozen=True, eq=False)
class Object:
    """A component of a label.

    Attributes:
        label: from 1.
        number: from 0 among those of its label.
        extent: slices that it covers.
        masks: bool ``[len(extent), rows, cols]``.
    """

    label: int
    number: int
    extent: range
    masks: np.ndarray

    def mask(self, index: int) -> np.ndarray | None:
        """The component in a slice; None where it is not."""
        return self.masks[index - self.extent.start] if index in self.extent else None

    def most_certain(self, region: Region) -> int:
        """The slice with the highest mean probability times area."""
        certainty = [
            float(region.probability(index, self.label)[mask].sum())
            for index, mask in zip(self.extent, self.masks, strict=True)
        ]
        return self.extent[int(np.argmax(certainty))]


def objects_of(classes: np.ndarray, smallest: int = 1) -> Iterator[Object]:
    """Components of all labels, one at a time, those of fewer voxels left out.

    Args:
        classes: uint16 ``[S, rows, cols]``, 0 background, k the k-th label.
        smallest: least voxels.
    """
    components = cc3d.connected_components(np.ascontiguousarray(classes), connectivity=26)
    sizes = np.bincount(components.ravel())
    seen: Counter[int] = Counter()
    for component, box in enumerate(find_objects(components), start=1):
        if box is None or sizes[component] < smallest:
            continue
        inside = components[box] == component
        label = int(classes[box][inside][0])
        masks = np.zeros((len(inside), *classes.shape[1:]), bool)
        masks[:, box[1], box[2]] = inside
        yield Object(label, seen[label], range(box[0].start, box[0].stop), masks)
        seen[label] += 1
