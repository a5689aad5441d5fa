"""A cut-down SAM of the package's own parts, and the same as our loader reads it from a file."""

import pytest
import torch

from fewshot.refine.sam import load_sam
from tests.unit.refine.sam.published import sam


@pytest.fixture(scope="session")
def original():
    return sam()


@pytest.fixture(scope="session")
def file(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(original.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def loaded(file):
    return load_sam(str(file), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def tiny_sam():
    return load_sam("random-tiny", device="cpu", dtype=torch.float32)
