"""Fill the feature bank for a folder of volumes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fewshot.dataset import study_readers
from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.pipeline import resolve, warm
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, Volume


@dataclass
class ExtractionSummary:
    """How many volumes were computed, were there already, or could not be read (name -> reason)."""

    computed: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def extract_features(
    folder: Path, *, backbone: Backbone, bank: FeatureBank, spec: SliceSpec, progress: Progress = silent
) -> ExtractionSummary:
    """Compute the features of every volume in a folder; one that cannot be read is left out and named.

    Features depend on millimetres per pixel, which fitting takes from its templates. Without a model to follow,
    the median volume of the folder stands for them.

    Args:
        folder: volumes and DICOM folders, or a dataset with ``images/``.
        spec: resolved (a model's), or what is known of it.

    Raises:
        FewshotError: if the folder is missing or holds no volume.
    """
    readers = study_readers(folder)
    summary = ExtractionSummary()
    if spec.pixel_mm is None:
        spec = _typical_spec(readers, spec, backbone, summary)
    for done, volume in enumerate(_readable(readers, summary)):
        progress("read", done, len(readers))
        if warm(volume, spec, backbone=backbone, bank=bank, progress=progress).fresh:
            summary.computed += 1
        else:
            summary.present += 1
    progress("read", len(readers), len(readers))
    return summary


def _typical_spec(
    readers: dict[str, Callable[[], Volume]], spec: SliceSpec, backbone: Backbone, summary: ExtractionSummary
) -> SliceSpec:
    """What most volumes suggest, reading one at a time so that a large folder fits into memory."""
    each = [resolve(spec, [volume], backbone) for volume in _readable(readers, summary)]
    if not each:
        return spec
    pixels = [one.pixel_mm for one in each if one.pixel_mm is not None]
    return replace(
        each[0],
        plane=Counter(one.plane for one in each).most_common(1)[0][0],
        window=Counter(one.window for one in each).most_common(1)[0][0],
        pixel_mm=statistics.median_low(pixels) if len(pixels) == len(each) else None,
    )


def _readable(readers: dict[str, Callable[[], Volume]], summary: ExtractionSummary) -> Iterator[Volume]:
    for name, read in readers.items():
        try:
            yield read()
        except FewshotError as error:
            summary.failed[name] = str(error)
