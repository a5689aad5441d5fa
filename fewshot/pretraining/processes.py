"""One process, or several that torchrun started."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from fewshot.features.device import choose_device

PATIENCE = timedelta(hours=12)
"""The first process cuts the slices of all studies while the others wait; they end at once when it fails."""

MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3}
"""Names and numbers of glibc's malloc.h."""
KEPT_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Processes:
    """This process among its fellows.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        device: where it computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The largest of all processes' values, so that all decide alike."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return float(shared)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step.

    By default it returns large blocks to the system and asks for them again in every step; half of a CPU training's
    time then went into clearing pages.
    """
    if platform.libc_ver()[0] == "glibc":
        for option in MALLOPT.values():
            ctypes.CDLL(None).mallopt(option, KEPT_BYTES)


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join those that torchrun started (it says so in the environment), each on a GPU of its own where there are some.

    Args:
        device: auto, cpu or cuda.

    Raises:
        FewshotError: if the device does not exist.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_memory()
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(int(os.environ["RANK"]), count, chosen)
    finally:
        # Networks hold on to the group. One that Python clears away after the group would wait, with Python's lock, for
        # a thread of the group that wants this lock: the process would never end.
        gc.collect()
        distributed.destroy_process_group()
