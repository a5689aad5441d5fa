"""Several processes: one model, one file, images counted over all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import load_file

from fewshot.features import load_backbone
from tests.unit.pretraining.children import context, start, train_together
from tests.unit.pretraining.tiny import DENSE, START, TINY, phantom

ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize(
    "changes",
    [{"batch": 8, "images": 24}, {**DENSE, "batch": 8, "accumulate": 2, "images": 16}],
    ids=["all terms", "accumulated"],
)
def test_two_processes_train_one_model(tmp_path, changes):
    out, port = tmp_path / "weights.safetensors", free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [start(train_together, out, changes, rank, port, pipe[1]) for rank, pipe in enumerate(pipes)]
    for pipe in pipes:
        assert pipe[0].poll(120), "a process hangs or failed"
    (first, drawn, *networks), (second, drawn_too, *others) = (pipe[0].recv() for pipe in pipes)
    for child in children:
        child.join()
    assert first.images == second.images == changes["images"]
    assert sum(count for count, _ in drawn + drawn_too) == changes["images"]
    assert len({total for _, total in drawn + drawn_too}) == len(drawn + drawn_too)
    for network, other in zip(networks, others, strict=True):
        assert [name for name in network if not np.array_equal(network[name], other[name])] == []
    student, teacher = networks
    assert any(not np.array_equal(student[name], teacher[name]) for name in teacher)
    written = load_file(out)
    np.testing.assert_array_equal(
        written["norm.weight"].numpy(), teacher["backbone.norm.weight"].astype(np.float16)
    )


def test_torchrun_starts_the_command(tmp_path):
    (tmp_path / "studies").mkdir()
    for seed in range(2):
        volume = phantom(seed)
        nib.save(nib.Nifti1Image(volume.array, volume.affine), tmp_path / "studies" / f"{seed}.nii.gz")
    settings = {**TINY, **DENSE, "images": 16, "batch": 8}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [
        "-m",
        "fewshot",
        "pretrain",
        "studies",
        "--out",
        "weights.safetensors",
        "--json",
        "result.json",
    ]
    options = [
        "--device",
        "cpu",
        "--from",
        START,
        *(f"--set={name}={value}" for name, value in settings.items()),
    ]
    done = subprocess.run(
        [sys.executable, *torchrun, *command, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights.safetensors: 16 images in ") == 1
    assert done.stderr.count("Curves: ") == 1
    assert done.stderr.count("16 of 16") == 1
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["images"], told["finished"], told["failed"]) == (16, True, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "result.json",
        "studies",
        "weights.run",
        "weights.safetensors",
    ]
    assert len(list((tmp_path / "weights.run" / "curves").iterdir())) == 1
    assert (
        load_backbone(str(tmp_path / "weights.safetensors"), device="cpu").dim
        == load_backbone(START, device="cpu").dim
    )
