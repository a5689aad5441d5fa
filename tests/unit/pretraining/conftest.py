"""Slices of made-up studies, cut once for all tests."""

import pytest
import torch

from fewshot.pretraining.processes import Processes
from fewshot.pretraining.slices import SliceStore, prepare_slices
from tests.unit.pretraining.tiny import READERS, TINY


@pytest.fixture(scope="session")
def slices_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    prepare_slices(READERS, folder, size=TINY["size"], per_volume=TINY["slices"], patch=8)
    return folder


@pytest.fixture(scope="session")
def store(slices_folder):
    return SliceStore(slices_folder)


@pytest.fixture
def alone():
    """This process on the CPU, without fellows."""
    return Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def one_thread():
    """The order of sums, and with it the last bit, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
