"""Fill the feature bank for a folder of volumes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fewshot.dataset import list_files
from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank
from fewshot.pipeline import resolve, warm
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceSpec, Volume, read_volume


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
    if not folder.is_dir():
        raise FewshotError(f"There is no folder {folder}; give a folder of volumes.")
    files = list_files(folder / "images" if (folder / "images").is_dir() else folder)
    if not files:
        raise FewshotError(f"{folder} holds no volume that can be read.")
    summary = ExtractionSummary()
    if spec.pixel_mm is None:
        spec = _typical_spec(files, spec, backbone, summary)
    for done, volume in enumerate(_readable(files, summary)):
        progress("read", done, len(files))
        if warm(volume, spec, backbone=backbone, bank=bank, progress=progress).fresh:
            summary.computed += 1
        else:
            summary.present += 1
    progress("read", len(files), len(files))
    return summary


def _typical_spec(
    files: dict[str, Path], spec: SliceSpec, backbone: Backbone, summary: ExtractionSummary
) -> SliceSpec:
    """What most volumes suggest, reading one at a time so that a large folder fits into memory."""
    each = [resolve(spec, [volume], backbone) for volume in _readable(files, summary)]
    if not each:
        return spec
    pixels = [one.pixel_mm for one in each if one.pixel_mm is not None]
    return replace(
        each[0],
        plane=Counter(one.plane for one in each).most_common(1)[0][0],
        window=Counter(one.window for one in each).most_common(1)[0][0],
        pixel_mm=statistics.median_low(pixels) if len(pixels) == len(each) else None,
    )


def _readable(files: dict[str, Path], summary: ExtractionSummary) -> Iterator[Volume]:
    for name, path in files.items():
        try:
            yield read_volume(path)
        except FewshotError as error:
            summary.failed[name] = str(error)
