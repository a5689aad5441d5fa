"""`fewshot pretrain` as a person calls it: what it says, what it writes, how it ends."""

import json
import os
import shutil
import signal
import sys

import nibabel as nib
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot import cli
from fewshot.features import load_backbone
from fewshot.pretraining.losses import Losses
from fewshot.pretraining.training import Training
from tests.unit.pretraining.tiny import DENSE, START, TINY, phantom

SETTINGS = {name: value for name, value in {**TINY, **DENSE}.items() if name not in ("images", "batch")}
COMMON = [
    "--from",
    START,
    "--device",
    "cpu",
    "--batch",
    4,
    *(f"--set={name}={value}" for name, value in SETTINGS.items()),
]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two volumes and a broken one."""
    folder = tmp_path_factory.mktemp("all") / "studies"
    folder.mkdir()
    for seed in range(2):
        volume = phantom(seed)
        nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / f"study_{seed}.nii.gz")
    whole = (folder / "study_0.nii.gz").read_bytes()
    (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the script's main with arguments; returns its exit code and what it printed on stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fewshot", "pretrain", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, capsys.readouterr()

    return run


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal, also where these tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "weights.safetensors"


def test_studies_become_a_backbone(run, studies, out, tmp_path):
    numbers = tmp_path / "numbers" / "result.json"
    code, said = run(studies, "--out", out, "--images", 8, "--json", numbers, *COMMON)
    assert code == 0, said.err
    folder = out.with_suffix(".run")
    assert f"tensorboard --logdir {folder}; pictures of the features: {folder / 'pictures'}" in said.err
    assert "Cutting studies into slices: 3 of 3" in said.err
    assert "Left out studies/broken: " in said.err
    assert said.err.index("Left out") < said.err.index("Training the backbone (images): 4 of 8, ")
    last = next(line for line in said.err.splitlines() if "8 of 8" in line)
    assert " images/s, 0:00:00 left, dense " in last
    assert ", accuracy " in last
    assert f"{out}: 8 images in 0." in said.out
    assert "2 studies, 1 left out" in said.out
    told = json.loads(numbers.read_text())
    assert set(told) == {"path", "images", "seconds", "failed", "resumed", "finished", "trained"}
    assert (told["path"], told["images"], told["finished"], list(told["failed"])) == (
        str(out),
        8,
        True,
        ["studies/broken"],
    )
    assert load_backbone(str(out), device="cpu").patch == 4
    pictures = sorted((folder / "pictures").iterdir())
    assert [Image.open(picture).size for picture in pictures] == [(2 * TINY["size"],) * 2] * 2
    assert all(Image.open(picture).getextrema() == ((0, 255),) * 3 for picture in pictures)
    events = EventAccumulator(str(folder / "curves")).Reload()
    assert events.Scalars("train/loss")
    assert events.Images("features/principal_components")

    code, said = run(studies, "--out", out, "--images", 8, *COMMON)
    assert (code, "went on from a checkpoint" in said.out) == (0, True)
    assert "This training was finished already; --restart trains anew." in said.err
    code, said = run(studies, "--out", out, "--images", 12, *COMMON)
    assert (code, "begun with other settings (images)" in said.err) == (1, True)
    assert said.err.strip().endswith("--restart.")
    code, said = run(studies, "--out", out, "--images", 12, "--restart", *COMMON)
    assert (code, ": 12 images in " in said.out, "went on" in said.out) == (0, True, False)


def test_a_terminal_shows_a_bar_with_what_matters(run, studies, out, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    code, said = run(studies, "--out", out, "--images", 8, *COMMON)
    assert code == 0
    plain = "".join(
        part.partition("m")[2] if index else part for index, part in enumerate(said.err.split("\x1b["))
    )
    assert "Training the backbone (images)" in plain
    assert "8/8" in plain
    assert "images/s " in plain
    assert "accuracy " in plain
    assert "seconds_left" not in plain


def test_ctrl_c_keeps_the_weights_and_the_same_command_goes_on(run, studies, out, ctrl_c, monkeypatch):
    step = Training.step

    def interrupted(self):
        if self.images == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Training, "step", interrupted)
    code, said = run(studies, "--out", out, "--images", 16, *COMMON)
    assert (code, ": 8 images in " in said.out) == (0, True)
    assert "Stopping after this step" in said.err
    assert "the weights can be used, and the same command goes on" in said.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert load_file(out)
    code, said = run(studies, "--out", out, "--images", 16, *COMMON)
    assert (code, ": 16 images in " in said.out, "went on from a checkpoint" in said.out) == (0, True, True)


def test_a_second_ctrl_c_stops_at_once(run, studies, out, ctrl_c, monkeypatch):
    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    step = Training.step
    monkeypatch.setattr(Training, "step", lambda self: interrupted(self) if self.images else step(self))
    code, _ = run(studies, "--out", out, "--images", 16, *COMMON)
    assert code == 130
    assert not out.exists()
    assert out.with_suffix(".run").joinpath("checkpoint.pt").exists()


def test_options_go_before_settings_and_time_before_the_default_number(run, studies, out, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fewshot.pretraining.pretrain", lambda readers, out, *, settings, **_: seen.append(settings) or 1 / 0
    )
    for arguments, expected in (
        ([], (0.0, 200_000, 32, 0)),
        (["--minutes", 5], (5.0, 0, 32, 0)),
        (["--minutes", 5, "--images", 10], (5.0, 10, 32, 0)),
        (["--set", "minutes=5"], (5.0, 0, 32, 0)),
        (["--minutes", 5, "--set", "images=9"], (5.0, 9, 32, 0)),
        (["--set", "seed=3", "--set", "batch=8"], (0.0, 200_000, 8, 3)),
        (["--set", "seed=3", "--seed", 4, "--batch", 6, "--set", "batch=8"], (0.0, 200_000, 6, 4)),
    ):
        with pytest.raises(ZeroDivisionError):
            run(studies, "--out", out, *arguments)
        settings = seen[-1]
        assert (settings.minutes, settings.images, settings.batch, settings.seed) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere", "--out", "w.safetensors"], 1, "There is no folder nowhere"),
        (["empty", "--out", "w.safetensors"], 1, "empty holds no volume that can be read"),
        (["studies", "--out", "w.pth"], 1, "ends in .safetensors; w.pth does not"),
        (["studies", "--out", "empty"], 1, "empty is a folder"),
        (
            ["studies", "--out", "w.safetensors", "--set", "size=1"],
            1,
            "size=1 is out of range; give 32 to 2048",
        ),
        (["studies", "--out", "w.safetensors", "--set", "size"], 1, "not of the form KEY=VALUE"),
        (["studies", "--out", "w.safetensors", "--from", "handmade"], 1, "'handmade' has no network"),
        (
            ["studies", "--out", "w.safetensors", "--from", "nothing.pth"],
            1,
            "no backbone file or folder nothing.pth",
        ),
        (["studies", "--out", "w.safetensors", "--device", "tpu"], 1, "There is no device 'tpu'"),
        (["studies"], 2, "Missing option"),
        (["--out", "w.safetensors"], 2, "Missing argument"),
        (["studies", "--out", "w.safetensors", "--batch", "1"], 2, "--batch"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(run, studies, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "studies").symlink_to(studies)
    found, printed = run(*arguments)
    assert found == code
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "studies"]


def test_nothing_readable_names_the_reason(run, studies, tmp_path, out):
    shutil.copytree(studies, tmp_path / "bad", ignore=shutil.ignore_patterns("study*"))
    code, said = run(tmp_path / "bad", "--out", out, *COMMON)
    assert code == 1
    assert "None of the 1 studies can be used for pretraining (bad/broken: " in said.err


def test_a_loss_that_is_no_number_ends_with_code_one(run, studies, out, monkeypatch):
    out.write_bytes(b"before")
    total = Losses.total
    monkeypatch.setattr(Losses, "total", lambda self, terms: total(self, terms) / torch.zeros(()))
    code, said = run(studies, "--out", out, "--images", 8, *COMMON)
    assert code == 1
    assert "Error: The loss is no longer a number after 4 images; there is no checkpoint yet" in said.err
    assert out.read_bytes() == b"before"


def test_a_missing_extra_is_told(run, studies, out, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fewshot.pretraining")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    code, said = run(studies, "--out", out)
    assert code == 1
    assert (
        "`fewshot pretrain` needs lightly.loss, which is not installed; install fewshot[pretrain]."
        in said.err
    )


def test_other_processes_are_silent(run, studies, out, monkeypatch):
    """All but the first of those that torchrun starts."""
    called = []
    monkeypatch.setattr(
        "fewshot.pretraining.pretrain", lambda *_, progress, **__: called.append(progress("pretrain", 1, 2))
    )
    monkeypatch.setenv("RANK", "1")
    code, said = run(studies, "--out", out, "--json", out.with_suffix(".json"))
    assert (code, said.out, said.err, called) == (0, "", "", [None])
    assert not out.with_suffix(".json").exists()
