"""What a person sees: curves, and pictures in which tissues have colours."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot.features.registry import load_model
from fewshot.pretraining import pretrain
from fewshot.pretraining.monitor import Monitor, principal_components, typical_slices
from fewshot.pretraining.network import Network
from fewshot.pretraining.run import run_folder
from fewshot.volumes import SliceSpec, SliceStack
from tests.unit.pretraining.tiny import DENSE, READERS, START, TINY, phantom, tiny_settings

SIZE = TINY["size"]


@pytest.fixture
def network():
    model, _ = load_model(START)
    return Network(model, tiny_settings(**DENSE))


def test_a_training_leaves_curves_and_pictures(tmp_path, slices_folder):
    out = tmp_path / "weights.safetensors"
    shutil.copytree(slices_folder, run_folder(out))
    pretrain(READERS, out, start=START, settings=tiny_settings(images=8))
    folder = run_folder(out)
    assert [file.name for file in sorted((folder / "pictures").iterdir())] == [
        "000000000.png",
        "000000008.png",
    ]
    picture = np.asarray(Image.open(folder / "pictures" / "000000008.png"))
    assert picture.shape == (2 * SIZE, 2 * SIZE, 3)
    above, below = picture[:SIZE], picture[SIZE:]
    assert np.ptp(above, axis=-1).max() == 0
    assert (np.ptp(below, axis=-1) > 60).mean() > 0.05
    assert (below[above[..., 0] == 0] < 255).any()
    events = EventAccumulator(str(folder / "curves")).Reload()
    tags = events.Tags()
    assert {f"train/{name}" for name in ("loss", "dino", "ibot", "koleo", "dense", "accuracy")} <= {
        *tags["scalars"]
    }
    assert {"speed/images_per_second", "schedule/learning_rate"} <= {*tags["scalars"]}
    assert all(np.isfinite(event.value) for event in events.Scalars("train/loss"))
    assert tags["images"] == ["features/principal_components"]
    shown = events.Images("features/principal_components")
    assert [(event.step, event.height, event.width) for event in shown] == [
        (0, 2 * SIZE, 2 * SIZE),
        (8, 2 * SIZE, 2 * SIZE),
    ]


def test_pictures_come_after_the_given_time(tmp_path, store, network):
    class Training:
        images, teacher = 4, network
        optimiser = torch.optim.SGD(network.parameters(), 0.1)

    for seconds, expected in ((0, 0), (3600, 0), (1e-6, 1)):
        monitor = Monitor(tmp_path / str(seconds), store, size=SIZE, seconds=seconds)
        monitor.step(Training, {"loss": 1.0}, 2.0)
        monitor.close()
        assert len(list((tmp_path / str(seconds) / "pictures").iterdir())) == expected


def test_ct_is_shown_in_the_window_of_inference(store):
    shown = typical_slices(store, SIZE)
    assert shown.shape == (2, 1, SIZE, SIZE)
    stack = SliceStack(phantom(0), SliceSpec(plane="axial", size=SIZE, window="ct-soft"), patch=8)
    rows, cols = stack.content
    differences = np.abs(stack.images[:, :rows, :cols] - shown[0, 0, :rows, :cols].numpy()).mean((1, 2))
    assert 10 < differences.argmin() < 24
    assert differences.min() < 0.01  # resized before and after the window
    assert not shown[0, 0, rows:].any()


def test_different_tissues_get_different_colours(network):
    images = torch.full((2, 1, 60, 60), 0.2)
    images[:, :, 16:44, 16:44] = 0.8
    images[1, :, :, 50:] = 0
    picture = principal_components(network.train(), images)
    assert network.training
    assert picture.shape == (120, 120, 3)
    features = picture[60:].astype(float)
    inside, outside = features[26:34, 26:34].mean((0, 1)), features[3:8, 26:34].mean((0, 1))
    assert np.abs(inside - outside).max() > 60
    assert (picture[60:, 116:] == 0).all()


def test_a_picture_of_air_is_black(network):
    assert not principal_components(network, torch.zeros(1, 1, 32, 32)).any()
