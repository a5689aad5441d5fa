"""A checkpoint is whole or not there; what was there before stays when the disk is full."""

import errno

import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.pretraining.checkpoint import load_checkpoint, save_checkpoint

STATE = {"images": 7, "seconds": 1.5, "settings": "{}", "student": {"weight": torch.arange(6.0).view(2, 3)}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, STATE)
    return path


def test_what_is_saved_is_loaded(path):
    state = load_checkpoint(path)
    assert (state["images"], state["seconds"], state["settings"]) == (7, 1.5, "{}")
    assert torch.equal(state["student"]["weight"], STATE["student"]["weight"])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("damage", ["half", "garbage", "nothing", "one bit"])
def test_a_damaged_checkpoint_is_refused_in_a_sentence(path, damage):
    whole = path.read_bytes()
    middle = whole.index(STATE["student"]["weight"].numpy().tobytes())
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "garbage": b"\x01" * 999, "nothing": b"", "one bit": flipped}[
            damage
        ]
    )
    with pytest.raises(FewshotError, match=r"checkpoint.pt cannot be read .*--restart") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return (tmp_path.joinpath("attacked").touch, ())

    torch.save({"format": 1, "student": Attack()}, path)
    with pytest.raises(FewshotError, match="cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [{"format": 99}, [1, 2], {}])
def test_another_version_is_refused(path, content):
    torch.save(content, path)
    with pytest.raises(FewshotError, match=r"of another version; start again with --restart"):
        load_checkpoint(path)


@pytest.mark.parametrize("failing", ["os.fsync", "os.replace", "torch.save"])
def test_a_full_disk_leaves_the_checkpoint_before(path, monkeypatch, failing):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"fewshot.pretraining.checkpoint.{failing}", full)
    with pytest.raises(
        FewshotError, match=r"checkpoint.pt cannot be written .*No space left.*free some space"
    ):
        save_checkpoint(path, {**STATE, "images": 8})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]
