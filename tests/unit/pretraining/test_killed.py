"""Trainings that end in the middle: killed at any moment, or on a full disk. The same call goes on."""

import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from fewshot.errors import FewshotError
from fewshot.pretraining import pretrain, run
from fewshot.pretraining.checkpoint import load_checkpoint
from fewshot.pretraining.run import run_folder
from tests.unit.pretraining.children import context, start, train, train_and_stall, train_on_a_full_disk
from tests.unit.pretraining.tiny import DENSE, READERS, START, tiny_settings

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = {"images": 100}
KILLS = 3


def wait_for(condition, child):
    until = time.monotonic() + 120
    while not condition():
        assert child.is_alive(), "the training ended by itself"
        assert time.monotonic() < until
        time.sleep(0.005)


def kill(child):
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def written(file):
    return file.stat().st_mtime_ns if file.exists() else 0


@pytest.fixture
def begun(tmp_path, slices_folder):
    """A weights file to come, with a checkpoint after two steps."""
    out = tmp_path / "weights.safetensors"
    shutil.copytree(slices_folder, run_folder(out))
    steps = iter([False, True])
    settings = tiny_settings(**DENSE, **IMAGES)
    result = pretrain(READERS, out, start=START, settings=settings, stop=lambda: next(steps))
    assert (result.images, result.finished) == (8, False)
    return out


def test_a_training_survives_kill_9_at_any_moment(tmp_path):
    moments = random.Random(0)
    whole, out = tmp_path / "whole.safetensors", tmp_path / "weights.safetensors"
    state = run_folder(out) / "checkpoint.pt"
    images = []
    for _ in range(KILLS):
        before, child = written(state), start(train, out, IMAGES)
        wait_for(lambda before=before: written(state) != before, child)
        time.sleep(moments.uniform(0, 0.15))
        kill(child)
        images.append(load_checkpoint(state)["images"])
    assert 0 < images[0] < images[-1] < IMAGES["images"]
    assert not out.exists()
    resumed = train(out, IMAGES)
    assert (resumed.resumed, resumed.finished, resumed.images) == (True, True, IMAGES["images"])
    through = train(whole, IMAGES)
    assert not through.resumed
    first, second = load_file(out), load_file(whole)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_training_survives_kill_9_while_it_saves(begun, tmp_path):
    state, marker = run_folder(begun) / "checkpoint.pt", tmp_path / "half written"
    before = state.read_bytes()
    child = start(train_and_stall, begun, IMAGES, marker)
    wait_for(marker.exists, child)
    kill(child)
    parts = list(state.parent.glob("checkpoint*.part"))
    assert 0 < parts[0].stat().st_size < len(before)
    assert state.read_bytes() == before
    steps = iter([True])
    settings = tiny_settings(**DENSE, **IMAGES)
    result = pretrain(READERS, begun, start=START, settings=settings, stop=lambda: next(steps))
    assert (result.resumed, result.images) == (True, 12)
    assert [file.name for file in state.parent.glob("checkpoint*")] == ["checkpoint.pt"]


def test_a_full_disk_stops_with_a_sentence_and_keeps_the_checkpoint(begun):
    state = run_folder(begun) / "checkpoint.pt"
    before, weights = state.read_bytes(), begun.read_bytes()
    here, there = context.Pipe(duplex=False)
    child = start(train_on_a_full_disk, begun, IMAGES, len(before) // 2, there)
    wait_for(here.poll, child)
    said = here.recv()
    child.join()
    assert said.startswith(f"The checkpoint {state} cannot be written (")
    assert "free some space and run the same command again" in said
    assert "\n" not in said
    assert state.read_bytes() == before
    assert begun.read_bytes() == weights
    assert [file.name for file in state.parent.glob("checkpoint*")] == ["checkpoint.pt"]


@pytest.mark.parametrize("failing", ["picture", "step", "weights"])
def test_a_full_disk_elsewhere_is_told_in_a_sentence(begun, monkeypatch, failing):
    weights = begun.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "weights":
        monkeypatch.setattr(run.Path, "write_bytes", full)
        said = "The weights cannot be written .*No space left on device.*training itself is kept"
    else:
        monkeypatch.setattr(run.Monitor, failing, full)
        said = "Curves and pictures cannot be written .*No space left on device.*last checkpoint"
    with pytest.raises(FewshotError, match=said):
        pretrain(READERS, begun, start=START, settings=tiny_settings(**DENSE, **IMAGES), stop=lambda: True)
    assert begun.read_bytes() == weights
    assert not list(begun.parent.glob("*.part"))
