"""A cut-down SAM 2 with random weights and a made-up volume."""

import numpy as np
import pytest

from fewshot.refine.sam2 import load_sam2


@pytest.fixture(scope="session")
def sam():
    return load_sam2("random-tiny-2", None, device="cpu", dtype=None)


@pytest.fixture(scope="session")
def frames():
    """Six slices of 128 x 128 in which a bright disc wanders; multiples of 1 / 255."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:128, :128]
    images = np.stack([60 + 25 * rng.random((128, 128)) for _ in range(6)])
    for index, image in enumerate(images):
        image[(rows - 50 - 3 * index) ** 2 + (cols - 60) ** 2 < 400] += 120
    return (images.astype(np.uint8) / np.float32(255)).astype(np.float32)


@pytest.fixture
def exact(monkeypatch):
    """Embeddings are not rounded to half precision, to compare with the package's predictors."""
    monkeypatch.setattr("fewshot.refine.sam2.model._halved", lambda level: level.float().cpu().numpy())
