"""Which channel of an image counts, and nnU-Net, which keeps each in a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from tests.unit.dataset.made import (
    SHAPE,
    describe,
    image,
    labels,
    msd,
    nnunet,
    write,
)

SEQUENCES = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


@pytest.mark.parametrize(
    ("channel", "index", "name"),
    [(None, 0, "FLAIR"), (2, 2, "t1gd"), ("T2w", 3, "T2w"), ("flair", 0, "FLAIR")],
)
def test_a_channel_of_one_file(tmp_path: Path, channel: int | str | None, index: int, name: str) -> None:
    dataset = Dataset.open(msd(tmp_path, channels=4, modality=SEQUENCES, channel=channel))
    volume = dataset.volume(dataset.cases["liver_1"])
    np.testing.assert_allclose(volume.array, image(1) + 1000 * index, rtol=1e-4)
    assert volume.modality == "MR"
    assert any(f"channel {index} ({name}) of 4" in note for note in volume.notes)
    assert dataset.template(dataset.cases["liver_1"]).labels.shape == SHAPE


def test_one_channel_needs_no_word(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path, modality={"0": "MRI"}))
    volume = dataset.volume(dataset.cases["liver_1"])
    assert (volume.modality, volume.notes) == ("MR", ())


def test_a_channel_that_a_file_does_not_have(tmp_path: Path) -> None:
    dataset = Dataset.open(msd(tmp_path, modality=SEQUENCES, channel=1))
    with pytest.raises(
        FewshotError, match=r"liver_0\.nii\.gz has one channel, number 0, so there is no channel 1"
    ):
        dataset.volume(dataset.cases["liver_0"])


def test_channels_of_a_damaged_file(tmp_path: Path) -> None:
    path = msd(tmp_path, channels=4) / "imagesTr" / "liver_0.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    dataset = Dataset.open(tmp_path)
    with pytest.raises(FewshotError, match=r"liver_0\.nii\.gz cannot be read: it is damaged"):
        dataset.volume(dataset.cases["liver_0"])


def test_a_channel_in_our_own_layout_must_be_told(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.nii.gz", image(0, channels=2))
    dataset = Dataset.open(describe(tmp_path, labels={}, modality="MR"))
    with pytest.raises(FewshotError, match="more than one volume"):
        dataset.volume(dataset.cases["a"])
    dataset = Dataset.open(describe(tmp_path, labels={}, modality="MR", channel=1))
    np.testing.assert_allclose(dataset.volume(dataset.cases["a"]).array, image() + 1000, rtol=1e-4)
    with pytest.raises(FewshotError, match="channel.*'T1': it must be a number"):
        Dataset.open(describe(tmp_path, labels={}, channel="T1"))


@pytest.mark.parametrize(("channel", "index", "name"), [(0, 0, "T2"), ("ADC", 1, "ADC")])
def test_an_nnunet_dataset(tmp_path: Path, channel: int | str, index: int, name: str) -> None:
    dataset = Dataset.open(nnunet(tmp_path, channel=channel))
    assert (list(dataset.labelled), dataset.labels) == (["liver_0", "liver_1"], {"liver": 1, "cancer": 2})
    assert (dataset.name, dataset.modality, dataset.complete) == (tmp_path.name, "MR", True)
    template = dataset.template(dataset.cases["liver_1"])
    np.testing.assert_allclose(template.volume.array, image(1) + 1000 * index, rtol=1e-4)
    assert template.volume.notes == (
        f'channel {index} ({name}) of 2 is used: "channel" in dataset.json chooses another',
    )


def test_voxels_that_nnunet_ignores_make_label_maps_incomplete(tmp_path: Path) -> None:
    dataset = Dataset.open(nnunet(tmp_path, labels={"background": 0, "liver": 1, "ignore": 2}))
    template = dataset.template(dataset.cases["liver_0"])
    assert (dataset.labels, template.complete) == ({"liver": 1}, False)
    assert np.unique(template.labels).tolist() == [0, 1]


def test_the_first_nnunet_lists_names_without_channel(tmp_path: Path) -> None:
    folder = msd(tmp_path)
    for path in [*(folder / "imagesTr").glob("liver*"), *(folder / "imagesTs").glob("liver*")]:
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    dataset = Dataset.open(folder)
    assert list(dataset.cases) == ["liver_0", "liver_1", "liver_9"]
    assert dataset.template(dataset.cases["liver_0"]).volume.name == "liver_0"


def test_numbers_in_names_that_are_no_channels(tmp_path: Path) -> None:
    for name in ("case_0007", "case_0008"):
        write(tmp_path / "imagesTr" / f"{name}.nii.gz", image())
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", labels())
    listed = [
        {"image": f"imagesTr/case_000{n}.nii.gz", "label": f"labelsTr/case_000{n}.nii.gz"} for n in (7, 8)
    ]
    about = {"labels": {"1": "x", "2": "y"}, "modality": {"0": "CT"}}
    for fields in (about, about | {"training": listed}):
        dataset = Dataset.open(describe(tmp_path, **fields))
        assert list(dataset.labelled) == ["case_0007", "case_0008"]
        assert dataset.template(dataset.cases["case_0008"]).volume.shape == SHAPE


def test_an_nnunet_label_without_image_is_missing(tmp_path: Path) -> None:
    write(nnunet(tmp_path) / "labelsTr" / "liver_5.nii.gz", labels())
    dataset = Dataset.open(tmp_path)
    assert list(dataset.cases) == ["liver_0", "liver_1"]
    with pytest.raises(FewshotError, match="liver_5 is missing"):
        dataset.choose(["liver_5"])


def test_channels_in_a_list_of_files(tmp_path: Path) -> None:
    nnunet(tmp_path)
    files = [f"imagesTr/liver_0_000{channel}.nii.gz" for channel in (0, 1)]
    listed = [{"image": files, "label": "labelsTr/liver_0.nii.gz"}]
    dataset = Dataset.open(describe(tmp_path, training=listed, labels={"a": 1, "b": 2}, channel=1))
    assert list(dataset.cases) == ["liver_0"]
    np.testing.assert_allclose(dataset.volume(dataset.cases["liver_0"]).array, image() + 1000, rtol=1e-4)
