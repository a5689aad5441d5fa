"""Clicks as a person would place them: `python -m benchmarks.clicks DATA [--sam NAME] [--sets a,b] [--clicks 5]`.

Each object is the largest part of a label in its largest slice. The first click lies at its middle, every further one
at the middle of the largest error: in the object where something is missing, beside it where something is too much.
The table says the mean Dice in that slice after each click, without weights and with a Segment Anything model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cc3d
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import distance_transform_edt

from fewshot.dataset import Dataset
from fewshot.features import FeatureBank, default_bank_folder, load_backbone
from fewshot.phantoms import make_study
from fewshot.refine.clicks import Clicks, segment_clicks
from fewshot.refine.sam import SamModel, load_sam
from fewshot.volumes import Volume

SPLIT = Path(__file__).parents[1] / "fewshot" / "weights" / "embedded-split.json"
PHANTOMS = "phantoms"


def main() -> None:
    """Click, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--sets", default="phantoms,mr_hippocampus_msd,mr_heart_lv_sunnybrook,ct_headneck_openkbp"
    )
    parser.add_argument("--sam", default="embedded")
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--bank", type=Path, default=None)
    arguments = parser.parse_args()
    backbone, bank = load_backbone(), FeatureBank(arguments.bank or default_bank_folder())
    models: list[SamModel | None] = [None, load_sam(arguments.sam)]
    table = Table("set", "objects", "by", *(f"{n + 1}" for n in range(arguments.clicks)), "s a click")
    for name in arguments.sets.split(","):
        objects = list(_objects(arguments.data, name, arguments.cases))
        for sam in models:
            runs = [
                _click(volume, truth, arguments.clicks, backbone=backbone, bank=bank, sam=sam)
                for volume, truth in objects
            ]
            dice, took = np.mean([run for run, _ in runs], axis=0), np.median([last for _, last in runs])
            how = "no weights" if sam is None else sam.name
            table.add_row(name, str(len(objects)), how, *(f"{value:.2f}" for value in dice), f"{took:.2f}")
    Console(width=120).print(table)


def _objects(data: Path, name: str, most: int) -> Iterator[tuple[Volume, np.ndarray]]:
    """Volumes, each with one object as bool ``[X, Y, Z]`` in one slice of the third axis."""
    if name == PHANTOMS:
        studies = [make_study(seed, orientation="RAS") for seed in range(21, 21 + most)]
    else:
        dataset = Dataset.open(data / name)
        names = json.loads(SPLIT.read_text())["evaluation"][name][:most]
        volumes = [dataset.volume(dataset.cases[case]) for case in names]
        studies = [
            (volume, dataset.label_map(dataset.cases[case], volume))
            for case, volume in zip(names, volumes, strict=True)
        ]
    for volume, labels in studies:
        for value in np.unique(labels[labels > 0]):
            index = int((labels == value).sum((0, 1)).argmax())
            parts = cc3d.connected_components(labels[:, :, index] == value, connectivity=8)
            one = np.zeros(labels.shape, bool)
            one[:, :, index] = parts == np.bincount(parts.ravel())[1:].argmax() + 1
            yield volume, one


def _click(volume: Volume, truth: np.ndarray, count: int, **how: object) -> tuple[list[float], float]:
    """Dice after each click, and the seconds of the last."""
    index = int(truth.any((0, 1)).argmax())
    inside: list[tuple[int, int, int]] = []
    beside: list[tuple[int, int, int]] = []
    found = np.zeros_like(truth)
    dice, last = [], 0.0
    for _ in range(count):
        missing, extra = truth & ~found, found & ~truth
        depths = [
            distance_transform_edt(np.pad(error[:, :, index], 1))[1:-1, 1:-1] for error in (missing, extra)
        ]
        deepest = int(depths[1].max() > depths[0].max())
        if depths[deepest].max() == 0:
            dice += [1.0] * (count - len(dice))
            break
        row, col = np.unravel_index(int(depths[deepest].argmax()), depths[deepest].shape)
        (beside if deepest else inside).append((int(row), int(col), index))
        start = time.perf_counter()
        found = segment_clicks(volume, Clicks(inside, beside), **how).mask  # type: ignore[arg-type]
        last = time.perf_counter() - start
        dice.append(float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum())))
    return dice, last


if __name__ == "__main__":
    main()
