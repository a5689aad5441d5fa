"""Small made-up volumes and backbones for tests that need no data."""

from pathlib import Path

import numpy as np
import pytest

from fewshot.features import FeatureBank, load_backbone
from fewshot.volumes import Volume


def blobs(seed: int, shape=(40, 36, 8), *, shift=(0, 0)):
    """A volume with a bright ball, a dark ball and noise, and its labels 1 and 2."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    bright = (x - 12 - shift[0]) ** 2 + (y - 14 - shift[1]) ** 2 + 4 * (z - 4) ** 2 < 49
    dark = (x - 28 - shift[0]) ** 2 + (y - 20 - shift[1]) ** 2 + 4 * (z - 3) ** 2 < 36
    image = 100 + 5 * generator.standard_normal(shape)
    image[bright] += 90
    image[dark] -= 80
    labels = (bright + 2 * dark).astype(np.uint16)
    volume = Volume(
        array=image.astype(np.float32),
        affine=np.diag([2.0, 2.0, 6.0, 1.0]),
        modality="MR",
        name=f"blobs_{seed}",
        path=None,
        calibrated=True,
        notes=(),
    )
    return volume, labels


@pytest.fixture(scope="session")
def tiny():
    return load_backbone("random-tiny", device="cpu")


@pytest.fixture
def bank(tmp_path: Path):
    return FeatureBank(tmp_path / "bank")
