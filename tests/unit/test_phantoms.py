"""Made-up studies: the same for everybody, different from each other, true to their labels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

from fewshot.dataset import Dataset
from fewshot.phantoms import LANDMARKS, ORGANS, Phantom, make_phantom, make_study, write_studies
from fewshot.volumes import SliceStack, Volume, resolve_spec
from fewshot.volumes.spec import SliceSpec

SMALL = (48, 40, 20)


def test_the_same_seed_gives_the_same_study():
    first, labels = make_study(4, shape=SMALL)
    again, same = make_study(4, shape=SMALL)
    assert first.digest == again.digest
    np.testing.assert_array_equal(labels, same)


def test_another_seed_gives_another_patient():
    first, labels = make_study(4, shape=SMALL, orientation="RAS")
    other, others = make_study(5, shape=SMALL, orientation="RAS")
    assert first.name != other.name
    for value in ORGANS.values():
        both = np.sum((labels == value) & (others == value))
        either = np.sum((labels == value) | (others == value))
        assert both / either < 0.9


@pytest.mark.parametrize("seed", range(8))
def test_every_organ_is_there_in_one_piece_and_all_but_the_spine_miss_slices(seed: int):
    _, labels = make_study(seed, orientation="RAS")
    assert set(np.unique(labels)) == {0, *ORGANS.values()}
    for name, value in ORGANS.items():
        _, pieces = ndimage.label(labels == value)
        assert pieces == 1, name
        held = (labels == value).any(axis=(0, 1))
        assert held.sum() >= 5, name
        assert held.all() == (name == "spine")


@pytest.mark.parametrize("seed", range(4))
def test_right_is_right_and_up_is_up_in_every_voxel_order(seed: int):
    for orientation in ("RAS", "LPS", "SAR"):
        volume, labels = make_study(seed, shape=SMALL, orientation=orientation)
        centre = {
            name: (volume.affine @ [*np.argwhere(labels == value).mean(axis=0), 1])[:3]
            for name, value in ORGANS.items()
        }
        assert centre["liver"][0] > centre["spleen"][0]
        assert centre["kidney_right"][0] > centre["spine"][0] > centre["kidney_left"][0]
        assert centre["spine"][1] < centre["liver"][1]
        assert centre["kidney_right"][2] < centre["liver"][2]


def test_the_voxel_order_changes_nothing_but_the_order():
    as_stored = [make_study(1, shape=SMALL, orientation=codes) for codes in ("RAS", "LPI", "ASR")]
    stacks = [SliceStack(volume, SliceSpec(plane="axial"), patch=8) for volume, _ in as_stored]
    shown = [
        (stack.slices(stack.volume.array), stack.slices(labels))
        for stack, (_, labels) in zip(stacks, as_stored, strict=True)
    ]
    for image, labels in shown[1:]:
        np.testing.assert_array_equal(image, shown[0][0])
        np.testing.assert_array_equal(labels, shown[0][1])


def test_intensity_alone_does_not_tell_the_organs_apart():
    volume, labels = make_study(0)
    hu = {name: volume.array[labels == value] for name, value in ORGANS.items()}
    liver, spleen = np.median(hu["liver"]), np.median(hu["spleen"])
    assert abs(liver - spleen) < volume.array[labels == ORGANS["liver"]].std()
    low, high = np.percentile(hu["liver"], [10, 90])
    alike = (volume.array > low) & (volume.array < high)
    assert np.mean(labels[alike] == ORGANS["liver"]) < 0.6


def test_values_are_those_of_a_body_in_air():
    volume, labels = make_study(2)
    assert volume.modality == "CT"
    assert volume.array.min() == -1024
    assert np.median(volume.array[0]) < -950
    for name, low, high in (
        ("liver", 60, 140),
        ("spleen", 60, 140),
        ("kidney_left", 80, 180),
        ("spine", 90, 320),
    ):
        assert low < np.median(volume.array[labels == ORGANS[name]]) < high


def test_a_small_study_is_made_at_once():
    def seconds() -> float:
        start = time.perf_counter()
        make_study(0, shape=SMALL)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5  # the best of three: other work may hold up one


def test_written_studies_are_a_data_set_with_the_same_content(tmp_path):
    names = write_studies(tmp_path, n=2, seed=3, shape=SMALL)
    dataset = Dataset.open(tmp_path)
    assert list(dataset.cases) == names
    assert dataset.labels == ORGANS
    assert dataset.complete
    for seed, case in zip((3, 4), dataset.cases.values(), strict=True):
        made, labels = make_study(seed, shape=SMALL)
        volume = dataset.volume(case)
        np.testing.assert_array_equal(volume.array, made.array)
        np.testing.assert_allclose(volume.affine, made.affine, atol=1e-4)
        np.testing.assert_array_equal(dataset.label_map(case, volume), labels)
        assert resolve_spec(SliceSpec(), [volume]).plane == "axial"


def places(volume: Volume, labels: np.ndarray, organ: str) -> np.ndarray:
    """The centres of an organ's voxels, RAS mm [N, 3]."""
    return np.asarray(apply_affine(volume.affine, np.argwhere(labels == ORGANS[organ])))


def voxel(volume: Volume, point: tuple[float, float, float]) -> tuple[int, ...]:
    """The voxel that a point lies in."""
    return tuple(np.rint(apply_affine(np.linalg.inv(volume.affine), point)).astype(int))


class TestLandmarks:
    """Points are true to what is drawn, to about a voxel: 3.5 mm in a slice, 6 mm between slices."""

    @pytest.fixture(scope="class", params=range(8))
    def phantom(self, request: pytest.FixtureRequest) -> Phantom:
        return make_phantom(request.param)

    def test_the_same_seed_gives_the_same_points_and_another_seed_others(self):
        first = make_phantom(4, shape=SMALL).landmarks
        assert list(first) == list(LANDMARKS)
        assert make_phantom(4, shape=SMALL).landmarks == first
        other = make_phantom(5, shape=SMALL).landmarks
        assert all(np.linalg.norm(np.subtract(first[name], other[name])) > 1 for name in LANDMARKS)

    def test_the_voxel_order_moves_no_point(self):
        volume, _, points = make_phantom(3, shape=SMALL, orientation="RAS")
        for codes in ("LPS", "ASR", "SAL"):
            turned, _, same = make_phantom(3, shape=SMALL, orientation=codes)
            assert same == points
            for point in points.values():
                assert turned.array[voxel(turned, point)] == volume.array[voxel(volume, point)]

    def test_a_finer_grid_moves_points_little(self):
        # The bending is drawn on the grid, and differs a little with it.
        _, _, coarse = make_phantom(2, shape=SMALL)
        _, _, fine = make_phantom(2)
        for name in LANDMARKS:
            assert np.linalg.norm(np.subtract(coarse[name], fine[name])) < 6

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_the_top_of_a_kidney_is_where_the_kidney_ends(self, phantom: Phantom, side: str):
        volume, labels, points = phantom
        kidney, top = places(volume, labels, f"kidney_{side}"), np.array(points[f"kidney_{side}_top"])
        step = voxel_sizes(volume.affine).max()
        assert abs(kidney[:, 2].max() - top[2]) < step
        assert np.linalg.norm(kidney - top, axis=1).min() < step

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_the_pelvis_is_a_dark_notch_where_vessels_enter_the_kidney(self, phantom: Phantom, side: str):
        volume, labels, points = phantom
        kidney, pelvis = places(volume, labels, f"kidney_{side}"), np.array(points[f"renal_pelvis_{side}"])
        spine = places(volume, labels, "spine").mean(0)
        middle = kidney.mean(0)
        assert abs(pelvis[0] - spine[0]) < abs(middle[0] - spine[0]), "towards the spine"
        assert pelvis[1] > middle[1], "and to the front"
        assert kidney[:, 2].min() < pelvis[2] < kidney[:, 2].max()
        assert np.linalg.norm(kidney - pelvis, axis=1).min() < 12
        assert labels[voxel(volume, points[f"renal_pelvis_{side}"])] == 0
        cortex = np.median(volume.array[labels == ORGANS[f"kidney_{side}"]])
        assert volume.array[voxel(volume, points[f"renal_pelvis_{side}"])] < cortex - 40

    def test_the_portal_vein_is_a_vessel_in_the_liver(self, phantom: Phantom):
        volume, labels, points = phantom
        at = voxel(volume, points["portal_vein"])
        assert labels[at] == ORGANS["liver"]
        around = tuple(slice(max(0, index - 1), index + 2) for index in at)
        assert volume.array[around].mean() > np.median(volume.array[labels == ORGANS["liver"]])

    def test_sides_mirror_each_other(self, phantom: Phantom):
        points = phantom.landmarks
        spine = places(phantom.volume, phantom.labels, "spine").mean(0)[0]
        for right, left in (
            ("kidney_right_top", "kidney_left_top"),
            ("renal_pelvis_right", "renal_pelvis_left"),
        ):
            (x_right, *_), (x_left, *_) = points[right], points[left]
            assert x_right > spine > x_left
            assert (x_right - spine) / (spine - x_left) == pytest.approx(1, abs=0.6)

    def test_written_points_are_those_of_the_studies(self, tmp_path):
        write_studies(tmp_path, n=2, seed=3, shape=SMALL, landmarks=True)
        assert Dataset.open(tmp_path).labels == ORGANS, "with both, a data set is one of labels"
        assert not Dataset.open(tmp_path).landmarks
        dataset = Dataset.open(tmp_path, landmarks="all")
        assert dataset.landmarks == LANDMARKS
        for seed, case in zip((3, 4), dataset.cases.values(), strict=True):
            marks, absent = dataset.read_marks(case, dataset.volume(case))
            assert not absent
            for name, point in make_phantom(seed, shape=SMALL).landmarks.items():
                np.testing.assert_allclose(marks[name].point, point, atol=1e-5)

    def test_without_being_asked_for_points_are_not_written(self, tmp_path):
        write_studies(tmp_path, n=1, shape=SMALL)
        assert not (tmp_path / "landmarks").exists()
        assert "landmarks" not in (tmp_path / "dataset.json").read_text()
