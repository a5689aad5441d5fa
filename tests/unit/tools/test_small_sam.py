"""The training of the small Segment Anything: pictures, prompts, steps, and going on after an interruption."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot.features.embedded import WEIGHTS
from fewshot.phantoms import make_study
from fewshot.refine.sam import load_sam, small
from tools.small_sam.images import LARGEST, SMALLEST, Pool, drawn, objects_of, of_volume, write_pool
from tools.small_sam.training import Training, augment, say, show_at


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    write_pool(folder, "drawn", (drawn(rng, 128) for _ in range(6)), 6)
    return Pool(folder)


def test_objects_are_connected_and_neither_tiny_nor_everything():
    regions = np.zeros((40, 40), int)
    regions[2:10, 2:10], regions[2:10, 20:28], regions[30, 30], regions[20:23, 0] = 1, 1, 2, 3
    objects = objects_of(regions)
    assert sorted(np.unique(objects)) == [0, 1, 2]
    assert objects[5, 5] != objects[5, 25]
    assert (np.bincount(objects.ravel())[1:] >= SMALLEST).all()
    assert not objects_of(np.ones((40, 40), int)).any(), f"more than {LARGEST} of the picture is no object"


def test_volumes_give_their_labels_or_regions_of_similar_grey():
    volume, labels = make_study(3, shape=(48, 40, 20))
    rng = np.random.default_rng(1)
    for image, objects in of_volume(volume, labels, 128, 3, rng):
        assert image.shape == objects.shape == (128, 128)
        assert 0 < image.max() <= 1
        assert objects.any()
    regions = [objects.max() for _, objects in of_volume(volume, None, 128, 3, rng)]
    assert len(regions) == 3
    assert max(regions) > 2


def test_an_augmented_picture_keeps_objects_where_they_are():
    rng = np.random.default_rng(2)
    objects = np.zeros((128, 128), np.int16)
    objects[40:80, 30:90] = 1
    image = 0.2 + 0.6 * objects.astype(np.float32)
    for _ in range(5):
        pixels, moved = augment(image, objects, rng)
        inside, outside = pixels[0, 0].numpy()[moved == 1], pixels[0, 0].numpy()[moved == 0]
        if 200 < inside.size < 12000:
            assert abs(np.median(inside) - np.median(outside)) > 0.1


def test_prompts_say_what_the_object_is():
    objects = np.zeros((128, 128), np.int16)
    objects[20:60, 20:60], objects[80:120, 70:110] = 1, 2
    rng = np.random.default_rng(3)
    for _ in range(30):
        said = say(objects, rng)
        for points, labels, target in zip(said.points, said.labels, said.targets, strict=True):
            for (x, y), label in zip(points.int().tolist(), labels.tolist(), strict=True):
                inside = bool(target[y // 2, x // 2] > 0)
                assert inside == (label == 1)
    assert say(np.zeros((64, 64), np.int16), rng) is None


def test_marks_lie_where_points_and_boxes_are():
    model = small.build(small.ARCHITECTURE)
    marks = model.prompt_encoder.marks
    points = torch.tensor([[[100.0, 20.0], [200.0, 240.0]]])
    labels = torch.tensor([[1.0, -1.0]])
    nothing = marks((points, -torch.ones(1, 2)), None, cells=(32, 32), pixels=(256, 256))
    painted = marks((points, labels), None, cells=(32, 32), pixels=(256, 256))
    assert painted.shape == (1, small.ARCHITECTURE["dim"], 32, 32)
    changed = (painted - nothing).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[20 // 8, 100 // 8]]
    boxed = marks(None, torch.tensor([[16.0, 32.0, 63.0, 95.0]]), cells=(32, 32), pixels=(256, 256))
    rows, cols = ((boxed - nothing).abs().sum(1)[0] > 1e-6).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (4, 11, 2, 7)


def test_training_learns_and_goes_on_after_an_interruption(pool, tmp_path):
    arguments = {"minutes": 60.0, "batch": 2, "backbone": WEIGHTS}
    training = Training(pool, tmp_path / "state.pt", **arguments)
    losses = [training._step()[0] for _ in range(14)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    training._keep()
    again = Training(pool, tmp_path / "state.pt", **arguments)
    assert again.steps == 14
    assert again._step()[0] == pytest.approx(training._step()[0], rel=1e-4)
    out = tmp_path / "sam.safetensors"
    again.write(out)
    assert out.stat().st_size < 12e6
    show_at(again.model, small.ARCHITECTURE["size"])
    loaded = load_sam(str(out))
    assert loaded.size == small.ARCHITECTURE["size"]
