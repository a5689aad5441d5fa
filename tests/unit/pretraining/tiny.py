"""Studies, settings and a network so small that a training takes a second."""

from functools import cache, partial

from fewshot.phantoms import make_study
from fewshot.pretraining import PretrainSettings

START = "random-tiny"
TINY = {
    "images": 24,
    "batch": 4,
    "global_pixels": 32,
    "local_pixels": 16,
    "local_crops": 1,
    "prototypes": 16,
    "places": 16,
    "size": 64,
    "slices": 9,
    "save_seconds": 0,
    "picture_seconds": 0,
}
DENSE = {"dino": 0, "ibot": 0, "koleo": 0}
"""Leaves the dense term alone, which is the quickest."""


def tiny_settings(**changes):
    return PretrainSettings.create(TINY | changes)


@cache
def phantom(seed):
    """A CT with voxels of seven millimetres along every axis."""
    volume, _ = make_study(seed, shape=(48, 40, 34))
    return volume


READERS = {f"abdomens/{seed}": partial(phantom, seed) for seed in range(2)}
