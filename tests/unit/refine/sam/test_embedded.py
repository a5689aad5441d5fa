"""The SAM that ships with the package, on made-up studies that its training has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from fewshot.features import FeatureBank
from fewshot.phantoms import make_study
from fewshot.phantoms.anatomy import ORGANS
from fewshot.prediction import Prediction
from fewshot.refine import create_refiner, refine
from fewshot.refine.sam import load_sam
from fewshot.refine.sam.registry import EMBEDDED
from tools.small_sam.check import score_phantoms
from tools.small_sam.images import FIRST_PHANTOM

HELD_OUT = (0, 1, 2)


@pytest.fixture(scope="module")
def sam():
    return load_sam("embedded", device="cpu")


def test_it_is_small_enough_to_ship():
    assert EMBEDDED.stat().st_size < 12_000_000


def test_ten_random_points_give_the_structure(sam):
    assert max(HELD_OUT) < FIRST_PHANTOM
    scores = score_phantoms(sam, HELD_OUT, strategy="random", count=10, every=5)
    everything = [dice for of in scores.values() for dice in of]
    assert len(everything) > 60
    assert set(scores) == set(ORGANS.values())
    assert np.mean(everything) > 0.8
    assert min(np.mean(of) for of in scores.values()) > 0.65


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.mean(
            [
                2 * ((found == v) & (truth == v)).sum() / ((found == v).sum() + (truth == v).sum())
                for v in ORGANS.values()
            ]
        )
    )


def test_it_completes_what_a_localisation_found_the_core_of(tmp_path):
    volume, truth = make_study(1, shape=(96, 80, 20))
    core = np.zeros_like(truth)
    for value in ORGANS.values():
        core[binary_erosion(truth == value, iterations=2)] = value
    found = Prediction(
        labels=core, names=dict(ORGANS), confidence={}, empty_slices={}, timings={}, provenance={}, notes=[]
    )
    refiner = create_refiner("sam", bank=FeatureBank(tmp_path), sam="embedded", device="cpu")
    refined = refine(volume, found, refiner)
    assert dice(refined.labels, truth) > dice(core, truth) + 0.1
    said = refined.provenance["refine"]
    assert said["sam"] == "embedded"
    assert said["taken"] > said["masks"] / 2
    shown = int((core > 0).any((0, 1)).sum())
    assert said["slices"] == said["encoded"] == shown
    again = refine(volume, found, refiner)
    assert again.provenance["refine"]["encoded"] == 0
    np.testing.assert_array_equal(again.labels, refined.labels)
