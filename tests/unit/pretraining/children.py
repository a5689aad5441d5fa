"""Trainings in processes of their own, to be killed, kept from writing, or run side by side."""

import multiprocessing
import os
import resource
import time
from pathlib import Path

import torch

from fewshot.errors import FewshotError
from fewshot.pretraining import checkpoint, pretrain, run
from tests.unit.pretraining.tiny import DENSE, READERS, START, tiny_settings

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["fewshot.pretraining"])  # imported once, for all children


def start(target, *arguments):
    """A child that runs ``target``; ends with this process at the latest."""
    child = context.Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def train(out, changes):
    torch.set_num_threads(1)
    return pretrain(READERS, out, start=START, settings=tiny_settings(**DENSE, **changes))


def train_and_stall(out, changes, marker):
    """Write half of the first checkpoint, say so by a file, and go no further."""

    def half(state, file, save=torch.save):
        save(state, file)
        file.truncate(file.tell() // 2)
        file.flush()
        Path(marker).touch()
        time.sleep(600)

    checkpoint.torch.save = half
    train(out, changes)


def train_on_a_full_disk(out, changes, limit, told):
    """No file may grow beyond ``limit`` bytes; what the training says goes into the pipe."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        told.send(str(train(out, changes)))
    except FewshotError as error:
        told.send(str(error))


def train_together(out, changes, rank, port, told):
    """One of two processes as torchrun would start them; sends its result, what it drew, and its weights."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    kept, drawn = [], []

    class Kept(run.Training):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            kept.append(self)
            draw = self.sampler.draw

            def watched(*arguments):
                slices = draw(*arguments)
                drawn.append((len(slices.first), slices.first.sum().item()))
                return slices

            self.sampler.draw = watched

    run.Training = Kept
    torch.set_num_threads(1)
    result = pretrain(READERS, out, start=START, settings=tiny_settings(**changes))
    weights = [
        {name: value.numpy() for name, value in network.named_parameters()}
        for network in (kept[0].student.requires_grad_(False), kept[0].teacher)
    ]
    told.send((result, drawn, *weights))
