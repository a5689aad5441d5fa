"""Studies become slices by the code of inference, once; what cannot be read is left out and named."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.pretraining.slices import ISOTROPIC, LEVELS, SHARE, SliceStore, prepare_slices
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.conftest import blobs
from tests.unit.pretraining.tiny import phantom

SIZE, PATCH = 48, 8


def cut(readers, folder, *, size=SIZE, per_volume=6, **options):
    readers = {name: (lambda volume=volume: volume) for name, volume in readers.items()}
    return prepare_slices(readers, folder, size=size, per_volume=per_volume, patch=PATCH, **options)


def magnetic(seed=0, **changes):
    """An MR with thick slices."""
    return replace(blobs(seed)[0], **changes)


def unreadable():
    raise FewshotError("scan.nii is damaged.")


def test_an_isotropic_volume_is_cut_along_three_planes(tmp_path):
    volume = phantom(0)
    assert max(volume.spacing) < ISOTROPIC * min(volume.spacing)
    store = cut({"a/ct": volume}, tmp_path, per_volume=9)
    assert len(store) <= 9
    shapes = {record.stack: (record.rows, record.cols) for record in store.records}
    stacks = [
        SliceStack(volume, SliceSpec(plane=plane, size=SIZE), patch=PATCH)
        for plane in ("axial", "coronal", "sagittal")
    ]
    assert list(shapes.values()) == [stack.content for stack in stacks]


@pytest.mark.parametrize("change", ["thick slices", "no spacing", "one slice"])
def test_other_volumes_are_cut_as_they_were_acquired(tmp_path, change):
    volume = magnetic()
    if change != "thick slices":
        volume = replace(volume, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
        volume = (
            replace(volume, calibrated=False)
            if change == "no spacing"
            else replace(volume, array=volume.array[:, :, :1])
        )
    store = cut({"a/mr": volume}, tmp_path, per_volume=99)
    assert {record.stack for record in store.records} == {0}
    assert len(store) == volume.shape[2]


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_grey_values_are_those_that_inference_computes(tmp_path, kind):
    volume = phantom(0) if kind == "CT" else magnetic()
    store = cut({"a/study": volume}, tmp_path, per_volume=99 if kind == "MR" else 6)
    assert {record.hounsfield for record in store.records} == {kind == "CT"}
    window = "ct-wide" if kind == "CT" else "percentile"
    plane = "axial" if kind == "CT" else "auto"
    stack = SliceStack(volume, SliceSpec(plane=plane, size=SIZE, window=window), patch=PATCH)
    spacing = np.linalg.norm(stack.affine[:3, 0])
    for index, record in enumerate(store.records):
        if record.stack == 0:
            rendered = stack.render([round(record.position / spacing)])[0, : record.rows, : record.cols]
            assert np.abs(store.image(index) - rendered).max() <= 1 / LEVELS
            assert np.ptp(rendered) > 0.05


def test_slices_of_a_volume_are_spread_evenly(tmp_path):
    few, all_of_them = (cut({"a/mr": magnetic()}, tmp_path / str(n), per_volume=n) for n in (3, 99))
    assert [record.position for record in few.records] == [6, 24, 36]
    assert len(all_of_them) == 8


def test_neighbours_lie_near_in_the_same_volume(tmp_path):
    store = cut({"a/0": magnetic(0), "a/1": magnetic(1)}, tmp_path, per_volume=99)
    assert store.near(0, 6.0).tolist() == [0, 1]
    assert store.near(3, 6.0).tolist() == [2, 3, 4]
    assert store.near(3, 5.9).tolist() == [3]
    assert store.near(8, 12.0).tolist() == [8, 9, 10]


def test_a_volume_that_cannot_be_read_is_left_out_and_named(tmp_path):
    volume = magnetic()
    told = []

    def missing():
        raise OSError(5, "Input/output error")

    readers = {
        "a/good": lambda: volume,
        "a/broken": unreadable,
        "a/black": lambda: replace(volume, array=np.zeros_like(volume.array)),
        "a/gone": missing,
        "a/fine": lambda: volume,
    }
    store = prepare_slices(
        readers, tmp_path, size=SIZE, per_volume=4, patch=PATCH, progress=lambda *said, **_: told.append(said)
    )
    assert store.names == ["a/good", "a/fine"]
    assert set(store.failed) == {"a/broken", "a/black", "a/gone"}
    assert store.failed["a/broken"] == "scan.nii is damaged."
    assert "nothing but air" in store.failed["a/black"]
    assert {record.volume for record in store.records} == {0, 1}
    assert told[0] == ("slices", 0, 5)
    assert told[-1] == ("slices", 5, 5)


def test_nothing_readable_is_an_error_that_says_why(tmp_path):
    with pytest.raises(FewshotError, match=r"None of the 2 studies .*\(a/x: scan.nii is damaged; a/y"):
        prepare_slices({"a/x": unreadable, "a/y": unreadable}, tmp_path, size=SIZE, per_volume=4, patch=PATCH)
    assert not (tmp_path / "slices.json").exists()


def test_a_large_group_does_not_drown_a_small_one(tmp_path):
    many = {f"large/{seed}": magnetic(seed) for seed in range(3)}
    short = magnetic(3)
    many["large/2"] = replace(many["large/2"], array=many["large/2"].array[:, :, :4])
    store = cut(many | {"small/0": short}, tmp_path, per_volume=99)
    weights = {
        name: store.weights[[record.volume == volume for record in store.records]]
        for volume, name in enumerate(store.names)
    }
    assert store.weights.sum() == pytest.approx(1)
    assert all(np.ptp(each) < 1e-9 for each in weights.values())
    sums = {name: each.sum() for name, each in weights.items()}
    assert sums["large/0"] == pytest.approx(sums["large/1"])
    assert sums["large/0"] == pytest.approx(sums["large/2"])
    large = sum(value for name, value in sums.items() if name.startswith("large"))
    assert large / sums["small/0"] == pytest.approx((20 / 8) ** SHARE)


def test_the_same_studies_are_not_read_again(tmp_path):
    first = cut({"a/0": magnetic()}, tmp_path)
    before = (tmp_path / "slices.bin").stat().st_mtime_ns
    again = prepare_slices({"a/0": unreadable}, tmp_path, size=SIZE, per_volume=6, patch=PATCH)
    assert again.records == first.records
    assert (tmp_path / "slices.bin").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"size": 32}, {"per_volume": 2}, {"readers": {"a/1": magnetic(1)}}])
def test_other_studies_or_sizes_are_cut_anew(tmp_path, change):
    first = cut({"a/0": magnetic()}, tmp_path)
    second = cut(**{"readers": {"a/0": magnetic()}, "folder": tmp_path, **change})
    assert (second.digest, second.records) != (first.digest, first.records)


@pytest.mark.parametrize("damage", ["no index", "half an index", "index of nothing", "half the pixels"])
def test_incomplete_slices_are_cut_anew(tmp_path, damage):
    good = cut({"a/0": magnetic()}, tmp_path)
    index, pixels = tmp_path / "slices.json", tmp_path / "slices.bin"
    expected = pixels.read_bytes()
    if damage == "no index":
        index.unlink()
        pixels.write_bytes(b"\0" * 100)
    elif damage == "half an index":
        index.write_text(index.read_text()[:200])
    elif damage == "index of nothing":
        index.write_text("{}")
    else:
        pixels.write_bytes(expected[: len(expected) // 2])
    assert cut({"a/0": magnetic()}, tmp_path).records == good.records
    assert pixels.read_bytes() == expected


def test_an_index_never_describes_slices_that_were_begun_later(tmp_path):
    """Another list of studies is interrupted while it is cut; then the first list comes again."""
    good = cut({"a/0": magnetic()}, tmp_path)
    expected = good.image(0)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_slices(
            {"a/1": lambda: magnetic(1), "a/2": interrupted}, tmp_path, size=SIZE, per_volume=6, patch=PATCH
        )
    assert np.array_equal(cut({"a/0": magnetic()}, tmp_path).image(0), expected)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewshot.pretraining.slices.os.fsync", full)
    with pytest.raises(FewshotError, match="cannot be written .*No space left on device.*free some space"):
        cut({"a/0": magnetic()}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_index_can_be_read_by_others(tmp_path):
    cut({"a/0": magnetic()}, tmp_path)
    content = json.loads((tmp_path / "slices.json").read_text())
    assert set(content) == {"records", "weights", "names", "failed", "digest"}
    assert len(SliceStore(tmp_path)) == len(content["records"])
