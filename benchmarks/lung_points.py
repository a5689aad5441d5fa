"""Landmarks of radiographs, from the masks of both lungs: `python -m benchmarks.lung_points DATASET OUT`.

Writes a dataset of points for `fewshot evaluate`: of each lung the apex (its highest pixel), the costophrenic angle
(the pixel farthest down and out) and the middle. They are as exact as the masks.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import cc3d
import numpy as np
from nibabel.affines import apply_affine

from fewshot.dataset import Dataset
from fewshot.landmarks.files import write_points

LEAST = 500
"""Pixels of a lung; smaller parts are specks of the mask."""


def main() -> None:
    """Write the dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    dataset = Dataset.open(arguments.dataset)
    for part in ("images", "landmarks"):
        (arguments.out / part).mkdir(parents=True, exist_ok=True)
    left_out = []
    for name, case in dataset.cases.items():
        volume = dataset.volume(case)
        labels = dataset.label_map(case, volume)
        points = lung_points(labels[:, :, 0] > 0, volume.affine)
        if points is None:
            left_out.append(name)
            continue
        shutil.copy(case.image, arguments.out / "images")
        write_points(arguments.out / "landmarks" / f"{name}.json", points)
    about = {"name": "lung points", "modality": "XR", "landmarks": list(POINTS)}
    (arguments.out / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")
    if left_out:
        print(f"Without two lungs, left out: {', '.join(left_out)}")


POINTS = tuple(
    f"{side}_{place}" for side in ("right", "left") for place in ("apex", "costophrenic_angle", "middle")
)


def lung_points(mask: np.ndarray, affine: np.ndarray) -> dict[str, tuple[float, float, float]] | None:
    """The points of a radiograph's lungs in the affine's frame (x to the patient's right, y up); None without two.

    Args:
        mask: bool ``[X, Y]``.
        affine: of the picture.
    """
    parts = cc3d.connected_components(mask.astype(np.uint8), connectivity=8)
    sizes = np.bincount(parts.ravel())[1:]
    if (sizes >= LEAST).sum() != 2:
        return None
    lungs = []
    for part in np.argsort(-sizes)[:2] + 1:
        voxels = np.argwhere(parts == part)
        lungs.append(apply_affine(affine, np.hstack([voxels, np.zeros((len(voxels), 1))])))
    lungs.sort(key=lambda of: -of[:, 0].mean())  # the right one first
    points = {}
    for side, lung, outwards in zip(("right", "left"), lungs, (1, -1), strict=True):
        points[f"{side}_apex"] = lung[lung[:, 1].argmax()]
        points[f"{side}_costophrenic_angle"] = lung[(outwards * lung[:, 0] - lung[:, 1]).argmax()]
        points[f"{side}_middle"] = lung.mean(0)
    return {name: (float(x), float(y), float(z)) for name, (x, y, z) in points.items()}


if __name__ == "__main__":
    main()
