"""The feature bank: same features from disk, nothing damaged is used, processes do not hurt each other."""

import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.features import Backbone, FeatureBank, load_backbone
from fewshot.features.embedded import random_state
from fewshot.features.extraction import compute_features, occupied_patches
from fewshot.features.registry import build_model
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.conftest import blobs

SPEC = SliceSpec(size=64)


@pytest.fixture
def stack(tiny):
    return SliceStack(blobs(0)[0], SPEC, patch=tiny.patch)


def only_entry(bank):
    (path,) = bank.folder.glob("*.safetensors")
    return path


def test_second_time_the_same_features_come_from_disk(bank, stack, tiny):
    first, second = bank.features(stack, tiny), bank.features(stack, tiny)
    assert (first.fresh, second.fresh) == (True, False)
    assert isinstance(second.features, np.memmap)
    assert second.features.dtype == np.float16
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.rows, second.rows)


def test_features_are_those_of_the_backbone(bank, stack, tiny):
    entry = bank.features(stack, tiny)
    for index in (0, len(stack) - 1):
        expected = tiny.features(torch.from_numpy(stack.images[index : index + 1]))[0]
        np.testing.assert_allclose(entry.features[entry.rows[index]], expected.half(), atol=2e-2)


def test_slices_of_air_are_skipped(bank, tiny):
    volume, _ = blobs(0)
    array = volume.array.copy()
    array[:, :, 5:] = array.min()
    entry = bank.features(
        SliceStack(type(volume)(**{**vars(volume), "array": array}), SPEC, patch=tiny.patch), tiny
    )
    assert entry.rows.tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert len(entry.features) == 5


def test_a_constant_volume_has_no_features(bank, tiny):
    volume, _ = blobs(0)
    constant = SliceStack(
        type(volume)(**{**vars(volume), "array": np.ones((8, 8, 3), np.float32)}), SPEC, patch=8
    )
    for _ in range(2):
        entry = bank.features(constant, tiny)
        assert entry.features.shape[0] == 0
        assert entry.rows.tolist() == [-1, -1, -1]


def plain(layers):
    """A DINOv2 of two layers with patches as the tiny backbone's."""
    sizes = {"patch_size": 4, "in_chans": 3, "embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32}
    model = build_model(None, {**sizes, "reg_tokens": 0}, Path("plain"))
    model.load_state_dict(random_state(model))
    return Backbone("plain", model, size=64, layers=layers, device="cpu")


@pytest.mark.parametrize("change", ["voxel", "spec", "backbone", "layers"])
def test_whatever_features_depend_on_makes_another_entry(bank, stack, tiny, change):
    backbone = plain([1]) if change == "layers" else tiny
    bank.features(stack, backbone)
    if change == "voxel":
        volume, _ = blobs(0)
        volume.array[3, 3, 3] += 1
        stack = SliceStack(volume, SPEC, patch=tiny.patch)
    elif change == "spec":
        stack = SliceStack(stack.volume, SliceSpec(size=72), patch=tiny.patch)
    elif change == "layers":
        backbone = plain([0, 1])
    else:
        backbone = load_backbone("random-tiny", device="cpu", dtype=torch.float64)
    assert bank.features(stack, backbone).fresh
    assert len(list(bank.folder.glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped bit", "wrong rows", "empty", "other signature", "not a header"]
)
def test_a_damaged_entry_is_reported_and_computed_again(bank, stack, tiny, damage, caplog):
    good = np.array(bank.features(stack, tiny).features)
    path = only_entry(bank)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped bit":
        content[-len(good.tobytes()) // 2] ^= 4
    elif damage == "wrong rows":
        rows = np.arange(len(stack), dtype=np.int32).tobytes()
        content = content.replace(rows, rows[::-1])
    elif damage == "empty":
        content = bytearray()
    elif damage == "other signature":
        content = content.replace(tiny.digest.encode(), b"0" * 16)
    else:
        content[:8] = (2**40).to_bytes(8, "little")
    path.write_bytes(content)
    fresh_bank = FeatureBank(bank.folder)
    with caplog.at_level(logging.WARNING):
        entry = fresh_bank.features(stack, tiny)
    assert entry.fresh
    assert "computed again" in caplog.text
    np.testing.assert_array_equal(entry.features, good)
    assert not fresh_bank.features(stack, tiny).fresh, "the entry was mended"


def test_least_recently_used_entries_go_first(tmp_path, tiny):
    stacks = [SliceStack(blobs(seed)[0], SPEC, patch=tiny.patch) for seed in range(3)]
    size = compute_features(stacks[0], tiny)[0].nbytes
    bank = FeatureBank(tmp_path, gigabytes=2.6 * size / 1e9)
    paths = []
    for age, stack in enumerate(stacks[:2]):
        bank.features(stack, tiny)
        paths.append(next(p for p in bank.folder.glob("*.safetensors") if p not in paths))
        os.utime(paths[-1], (1000 + age, 1000 + age))
    bank.features(stacks[0], tiny)  # used again: now the other one is the oldest
    bank.features(stacks[2], tiny)
    assert paths[0].exists()
    assert not paths[1].exists()


def test_no_temporary_files_stay(bank, stack, tiny):
    bank.features(stack, tiny)
    assert [path.suffix for path in bank.folder.iterdir() if not path.name.endswith(".lock")] == [
        ".safetensors"
    ]


def test_a_crash_while_writing_leaves_no_entry(bank, stack, tiny, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        bank.features(stack, tiny)
    monkeypatch.undo()
    assert not list(bank.folder.glob("*.safetensors"))
    assert bank.features(stack, tiny).fresh


def test_a_full_disk_does_not_stop_a_prediction(bank, stack, tiny, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert bank.features(stack, tiny).features.any()
    assert "were not stored" in caplog.text


@pytest.mark.parametrize("gigabytes", [0, -1, float("inf"), float("nan")])
def test_a_size_limit_must_be_positive(tmp_path, gigabytes):
    with pytest.raises(FewshotError, match="size limit"):
        FeatureBank(tmp_path, gigabytes=gigabytes)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FewshotError, match="file/bank"):
        FeatureBank(tmp_path / "file" / "bank")


def _fill(folder, results):
    torch.set_num_threads(1)
    backbone = load_backbone("random-tiny", device="cpu")
    stack = SliceStack(blobs(0)[0], SPEC, patch=backbone.patch)
    entry = FeatureBank(folder).features(stack, backbone)
    results.put((entry.fresh, float(np.asarray(entry.features, np.float64).sum())))


def test_several_processes_compute_an_entry_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_fill, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    seen = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert len({total for _, total in seen}) == 1
    assert sum(fresh for fresh, _ in seen) == 1
    assert only_entry(FeatureBank(tmp_path))


def test_margins_of_air_are_left_out_and_look_like_air(tiny):
    """The body's features hardly change when the field of view grows by air."""
    volume, _ = blobs(0)
    body = volume.array - volume.array.min() + 50
    wide = np.zeros((120, 36, 8), np.float32)
    wide[40:80] = body
    spec = SliceSpec(size=None, pixel_mm=0.5, window="percentile")
    stacks = [
        SliceStack(type(volume)(**{**vars(volume), "array": array, "name": "fov"}), spec, patch=tiny.patch)
        for array in (body, wide)
    ]
    ys, xs = occupied_patches(stacks[1])
    assert (ys.start, ys.stop) == (0, stacks[1].grid[0])
    assert xs.stop - xs.start < stacks[1].grid[1] / 2
    features, rows = compute_features(stacks[1], tiny)
    outside = np.delete(features, np.r_[xs], axis=2)
    assert (outside == outside[0, 0, 0]).all()
    assert (features[:, :, xs].std((0, 1, 2)) > 0).any()
    assert rows.tolist() == list(range(8))


def test_nothing_is_cut_off_where_the_image_fills_the_view(stack, tiny):
    ys, xs = occupied_patches(stack)
    assert (ys, xs) == (slice(0, stack.grid[0]), slice(0, stack.grid[1]))
    assert compute_features(stack, tiny)[0].shape[1:3] == stack.grid


def test_a_write_error_of_safetensors_does_not_stop_a_prediction(bank, stack, tiny, monkeypatch, caplog):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("fewshot.features.bank.save_file", full)
    assert bank.features(stack, tiny).features.any()
    assert "were not stored" in caplog.text


def test_a_bank_that_cannot_be_locked_still_gives_features(bank, stack, tiny, monkeypatch, caplog):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", denied)
    assert bank.features(stack, tiny).features.any()
    assert "cannot be locked" in caplog.text


def test_leftovers_of_killed_processes_are_swept(bank, stack, tiny):
    old, young = bank.folder / ".gone.1.tmp", bank.folder / ".busy.2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    bank.features(stack, tiny)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_folder_that_was_cleared_meanwhile_is_made_again(bank, stack, tiny):
    shutil.rmtree(bank.folder)
    assert bank.features(stack, tiny).fresh
    assert not bank.features(stack, tiny).fresh


def test_failing_to_evict_does_not_deny_that_features_were_stored(bank, stack, tiny, monkeypatch, caplog):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FeatureBank, "_remove_oldest", denied)
    assert bank.features(stack, tiny).fresh
    assert "were not stored" not in caplog.text
    assert "grow over its limit" in caplog.text
    assert not bank.features(stack, tiny).fresh


def test_arrays_that_do_not_lie_in_one_piece_are_kept_as_they_are(tmp_path):
    bank = FeatureBank(tmp_path)
    array = np.asfortranarray(np.arange(24, dtype=np.float16).reshape(4, 6))
    signature = {"what": "a test"}
    assert bank.arrays(signature, lambda: {"image": array})[1]
    found, fresh = bank.arrays(signature, lambda: pytest.fail("it was computed again"))
    assert not fresh
    np.testing.assert_array_equal(found["image"], array)
