"""Slices are encoded once, whatever the memory, and found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot.features import FeatureBank
from fewshot.refine.encoding import Embeddings, sam_stack
from fewshot.refine.memory import SMALL_GPU, Batches
from fewshot.volumes import SliceSpec, SliceStack, Volume
from tests.unit.refine.fakes import FakeSam, cut, discs


@pytest.fixture
def bank(tmp_path):
    return FeatureBank(tmp_path / "bank")


def same(embeddings: Embeddings, index: int) -> bool:
    """Whether the embedding is that of this very slice."""
    rows, cols = embeddings.stack.content
    image = embeddings.stack.render([index])[0, :rows, :cols]
    return bool((np.asarray(embeddings.of_slice(index)["image"]) == image.astype(np.float16)).all())


def test_slices_are_shown_at_the_models_size_with_plane_and_window_as_they_were():
    volume, _ = discs(spacing=(1.0, 3.0, 6.0))
    given = SliceStack(volume, SliceSpec("coronal", "percentile", size=20, pixel_mm=2.0), patch=4)
    stack = sam_stack(given, FakeSam(size=64, patch=8))
    assert (stack.plane, stack.spec.window, stack.limits) == ("coronal", "percentile", given.limits)
    assert stack.native == given.native
    assert max(stack.content) == 64
    assert stack.spec.pixel_mm is None
    assert all(side % 8 == 0 for side in stack.shape[1:])


def test_the_frame_says_where_the_slice_lies_in_the_image(bank):
    volume, _ = discs(shape=(40, 10, 6), spacing=(1.0, 3.0, 6.0))
    embeddings = Embeddings(cut(volume), FakeSam(size=64), bank)
    assert embeddings.frame.native == (10, 40)
    assert embeddings.frame.content == (48, 64)  # square pixels: 30 x 40 mm


def test_only_the_slices_asked_for_are_encoded_and_only_once(bank):
    volume, _ = discs()
    sam = FakeSam()
    embeddings = Embeddings(cut(volume), sam, bank)
    assert embeddings.prepare([3, 1, 3]) == 2
    assert embeddings.prepare(np.array([1, 2, 3])) == 1
    assert sum(sam.encoded) == embeddings.encoded == 3
    assert all(same(embeddings, index) for index in (1, 2, 3))
    assert sum(sam.encoded) == 3
    assert same(embeddings, 4)
    assert sum(sam.encoded) == embeddings.encoded == 4


def test_another_process_finds_them_in_the_bank(bank):
    volume, _ = discs()
    Embeddings(cut(volume), FakeSam(), bank).prepare(range(6))
    sam = FakeSam()
    later = Embeddings(cut(volume), sam, FeatureBank(bank.folder))
    assert later.prepare(range(6)) == 0
    assert same(later, 2)
    assert sam.encoded == []


@pytest.mark.parametrize("changed", ["weights", "plane", "window", "voxels"])
def test_what_they_depend_on_makes_other_entries(bank, changed):
    volume, _ = discs()
    Embeddings(cut(volume), FakeSam(), bank).prepare([2])
    sam = FakeSam(digest="fake-2") if changed == "weights" else FakeSam()
    array = volume.array.copy()
    array[5, 5, 5] += changed == "voxels"
    spec = SliceSpec(
        plane="coronal" if changed == "plane" else "axial",
        window="ct-wide" if changed == "window" else "percentile",
    )
    other = Embeddings(SliceStack(Volume(array, volume.affine, "MR"), spec, patch=1), sam, bank)
    assert other.prepare([2]) == 1


def test_the_size_and_patch_of_the_given_stack_do_not_matter(bank):
    volume, _ = discs()
    Embeddings(cut(volume), FakeSam(), bank).prepare([2])
    given = SliceStack(volume, SliceSpec("axial", "percentile", size=100, pixel_mm=1.0), patch=14)
    assert Embeddings(given, FakeSam(), bank).prepare([2]) == 0


def test_progress_counts_what_was_there_already(bank):
    volume, _ = discs()
    embeddings = Embeddings(cut(volume), FakeSam(), bank)
    embeddings.prepare([0, 1])
    told = []
    embeddings.prepare(range(4), lambda stage, done, total: told.append((stage, done, total)))
    assert told == [("encode", 2, 4), ("encode", 3, 4), ("encode", 4, 4)]


def test_a_gpu_gets_batches(bank):
    volume, _ = discs()
    sam = FakeSam(fits=100)
    embeddings = Embeddings(cut(volume), sam, bank)
    embeddings.prepare(range(6))
    assert sam.encoded == [6]
    assert all(same(embeddings, index) for index in range(6))
    assert embeddings.notes == []


def test_too_little_memory_halves_the_batch(bank):
    volume, _ = discs()
    sam = FakeSam(fits=2)
    embeddings = Embeddings(cut(volume), sam, bank)
    assert embeddings.prepare(range(6)) == 6
    assert sam.encoded == [2, 2, 2]  # 6 and 3 did not fit
    assert sam.device.type == "cuda"
    assert all(same(embeddings, index) for index in range(6))
    assert embeddings.notes == []


@pytest.mark.parametrize("way", ["prepare", "of_slice"])
def test_far_too_little_memory_leads_to_the_cpu_and_says_so(bank, way):
    volume, _ = discs()
    sam = FakeSam(fits=0)
    embeddings = Embeddings(cut(volume), sam, bank)
    if way == "prepare":
        assert embeddings.prepare(range(4)) == 4
    assert all(same(embeddings, index) for index in range(4))
    assert sam.device == torch.device("cpu")
    assert sam.encoded == [1, 1, 1, 1]
    assert embeddings.notes == [SMALL_GPU]
    again = FakeSam()  # as the CPU made them, so the CPU finds them
    assert Embeddings(cut(volume), again, bank).prepare(range(4)) == 0


def test_a_cpu_that_cannot_either_is_an_error_and_no_endless_loop():
    def fail(items):
        raise torch.cuda.OutOfMemoryError("no")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(Batches(FakeSam(fits=0), 8, []).run([1, 2, 3], fail))


def test_other_errors_pass(bank):
    volume, _ = discs()
    sam = FakeSam()
    sam.encode = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        Embeddings(cut(volume), sam, bank).prepare([0])


def test_a_bank_that_cannot_store_does_not_double_the_work(bank, monkeypatch):
    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(bank, "_write", full)
    volume, _ = discs()
    sam = FakeSam()
    embeddings = Embeddings(cut(volume), sam, bank)
    assert embeddings.prepare([1, 2]) == 2
    assert embeddings.prepare([1, 2]) == 0
    assert same(embeddings, 1)
    assert same(embeddings, 2)
    assert sum(sam.encoded) == 2


def test_a_damaged_entry_is_encoded_again(bank):
    volume, _ = discs()
    Embeddings(cut(volume), FakeSam(), bank).prepare([2])
    (path,) = bank.folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    embeddings = Embeddings(cut(volume), FakeSam(), FeatureBank(bank.folder))
    assert same(embeddings, 2)
    assert embeddings.encoded == 1
