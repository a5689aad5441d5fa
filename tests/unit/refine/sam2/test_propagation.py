import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Frame
from fewshot.refine.sam2.tracking import Reference

SQUARE = Frame((128, 128), (128, 128))


def disc(row, col, radius=20):
    rows, cols = np.mgrid[:128, :128]
    return (rows - row) ** 2 + (cols - col) ** 2 < radius**2


@pytest.fixture(scope="module")
def embeddings(sam, frames):
    return sam.encode(frames)


def run(sam, embeddings, memory, extent=range(6), **more):
    asked = []

    def embedding(index):
        asked.append(index)
        return embeddings[index]

    found = {each.index: each for each in sam.propagate(embedding, extent, memory, SQUARE, **more)}
    return found, asked


@pytest.fixture(scope="module")
def video(sam, frames, tmp_path_factory):
    """The package's predictor with the same weights, its state of the same frames, and these as it reads them."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from fewshot.refine.sam2 import architecture

    folder = tmp_path_factory.mktemp("video")
    for index, frame in enumerate(frames):
        Image.fromarray(np.round(frame * 255).astype(np.uint8)).save(folder / f"{index:03}.jpg", quality=95)
    kept = {}

    def keep(model):
        kept["model"] = OmegaConf.merge(model, {"_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor"})
        return instantiate(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydra.utils.instantiate", keep)
        architecture.build(architecture.RANDOM_TINY)
    predictor = instantiate(kept["model"]).eval()
    predictor.load_state_dict(sam.network.state_dict())
    read = [np.array(Image.open(path), np.float32) / 255 for path in sorted(folder.glob("*.jpg"))]
    return predictor, folder, np.stack(read)


def of_package(video, add):
    predictor, folder, _ = video
    state = predictor.init_state(str(folder))
    add(predictor, state)
    found = {}
    for reverse in (False, True):
        for index, _, logits in predictor.propagate_in_video(state, reverse=reverse):
            found[index] = logits[0, 0].numpy()
    return found


@pytest.mark.usefixtures("exact")
def test_masks_are_carried_as_by_the_package(sam, video):
    mask = disc(56, 60)
    wanted = of_package(video, lambda of, state: of.add_new_mask(state, 2, 1, torch.from_numpy(mask)))
    found, _ = run(sam, sam.encode(video[2]), {2: mask})
    assert sorted(found) == sorted(wanted) == list(range(6))
    for index, logits in wanted.items():
        np.testing.assert_allclose(found[index].logits, logits, atol=1e-4, err_msg=str(index))
    assert np.ptp(wanted[5]) > 1


@pytest.mark.usefixtures("exact")
def test_two_known_slices_are_carried_as_by_the_package(sam, video):
    masks = {1: disc(53, 60), 4: disc(62, 60)}

    def add(of, state):
        for index, mask in masks.items():
            of.add_new_mask(state, index, 1, torch.from_numpy(mask))

    wanted = of_package(video, add)
    found, _ = run(sam, sam.encode(video[2]), masks)
    for index, logits in wanted.items():
        np.testing.assert_allclose(found[index].logits, logits, atol=1e-4, err_msg=str(index))


@pytest.mark.usefixtures("exact")
def test_points_and_boxes_are_carried_as_by_the_package(sam, video):
    points, labels, box = np.array([[55.0, 60.0], [20.0, 20.0]]), np.array([1, 0]), (36, 40, 76, 80)

    def add(of, state):
        of.add_new_points_or_box(
            state, 1, 1, points[:, ::-1].copy(), labels, box=np.array(box, np.float32)[[1, 0, 3, 2]]
        )

    wanted = of_package(video, add)
    found, _ = run(sam, sam.encode(video[2]), {1: Prompt(points, labels, box)})
    for index, logits in wanted.items():
        np.testing.assert_allclose(found[index].logits, logits, atol=1e-4, err_msg=str(index))


def test_slices_are_visited_outward_and_once(sam, embeddings):
    found, asked = run(sam, embeddings, {2: disc(56, 60)}, range(1, 5))
    assert list(found) == asked == [2, 3, 4, 1]
    assert found[2].quality == 1
    given = disc(56, 60)  # it comes back at the decoder's resolution, a quarter of the image's
    assert ((found[2].logits > 0) != given).sum() < 0.01 * given.sum()
    assert all(each.presence > 0 and 0 < each.quality <= 1 for each in found.values())


def test_the_same_again(sam, embeddings):
    first, _ = run(sam, embeddings, {2: disc(56, 60)})
    second, _ = run(sam, embeddings, {2: disc(56, 60)})
    for index, each in first.items():
        np.testing.assert_array_equal(each.logits, second[index].logits)


def test_another_known_mask_changes_later_slices(sam, embeddings):
    here, _ = run(sam, embeddings, {2: disc(56, 60)})
    there, _ = run(sam, embeddings, {2: disc(100, 20)})
    for index in (0, 1, 3, 4, 5):
        assert np.abs(here[index].logits - there[index].logits).max() > 0.01


def test_slices_between_are_remembered_too(sam, embeddings):
    """What is found in a slice depends on those seen on the way there."""
    along, _ = run(sam, embeddings, {2: disc(56, 60)})
    other = [*embeddings[:3], embeddings[0], *embeddings[4:]]
    changed, _ = run(sam, other, {2: disc(56, 60)})
    assert np.abs(along[4].logits - changed[4].logits).max() > 1e-4


def test_references_of_another_volume_come_first(sam, embeddings, frames):
    mask = disc(56, 60)
    other = sam.encode(frames[:1, ::-1].copy())[0]
    told = Reference(other, SQUARE, mask[::-1])
    alone, _ = run(sam, embeddings, {2: mask})
    beside, _ = run(sam, embeddings, {2: mask}, references=[told])
    assert np.abs(alone[3].logits - beside[3].logits).max() > 1e-3
    only, asked = run(sam, embeddings, {}, references=[told], start=3)
    assert asked == [3, 4, 5, 2, 1, 0]
    another, _ = run(sam, embeddings, {}, references=[Reference(other, SQUARE, disc(20, 100))], start=3)
    assert all(np.abs(only[index].logits - another[index].logits).max() > 1e-3 for index in range(6))
    assert len(run(sam, embeddings, {}, references=[told])[1]) == 6


@pytest.mark.usefixtures("exact")
def test_references_are_like_the_first_frames_of_a_video(sam, video):
    mask = disc(50, 60)
    wanted = of_package(video, lambda of, state: of.add_new_mask(state, 0, 1, torch.from_numpy(mask)))
    seen = sam.encode(video[2])
    found = {
        each.index: each
        for each in sam.propagate(
            lambda index: seen[index + 1],
            range(5),
            {},
            SQUARE,
            start=0,
            references=[Reference(seen[0], SQUARE, mask)],
        )
    }
    for index in range(5):
        np.testing.assert_allclose(found[index].logits, wanted[index + 1], atol=1e-4)


def test_references_may_have_another_frame(sam, embeddings, frames):
    """A template of half the size shows the same as one of the same size."""
    large = Reference(embeddings[0], SQUARE, disc(50, 60))
    small = Reference(embeddings[0], Frame((64, 64), (128, 128)), disc(50, 60)[::2, ::2])
    other = Reference(embeddings[0], Frame((64, 64), (128, 128)), disc(90, 20)[::2, ::2])
    found = [run(sam, embeddings, {}, references=[each])[0][3].logits for each in (large, small, other)]
    near, far = np.abs(found[0] - found[1]).mean(), np.abs(found[0] - found[2]).mean()
    assert near < far / 2


@pytest.fixture
def blind(sam):
    """Sees the object in slices where it is known only."""
    bias = sam.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    before = bias.clone()
    bias.fill_(-5.0)
    yield
    bias.copy_(before)


@pytest.mark.usefixtures("blind")
def test_it_ends_where_the_object_is_gone(sam, embeddings):
    found, asked = run(sam, embeddings, {2: disc(56, 60)}, patience=2)
    assert asked == [2, 3, 4, 1, 0]
    assert found[2].presence > 0
    assert all(found[index].presence < 0 for index in (0, 1, 3, 4))
    assert all((found[index].logits < 0).all() for index in (0, 1, 3, 4))
    assert run(sam, embeddings, {2: disc(56, 60)}, patience=1)[1] == [2, 3, 1]
    assert run(sam, embeddings, {0: disc(50, 60), 5: disc(65, 60)}, patience=1)[1] == [0, 5, 1, 2, 3, 4]


def test_nothing_known_is_an_error(sam, embeddings):
    with pytest.raises(ValueError, match="nothing to propagate"):
        next(sam.propagate(embeddings.__getitem__, range(6), {}, SQUARE))
    with pytest.raises(ValueError, match="a point or a box"):
        next(
            sam.propagate(
                embeddings.__getitem__, range(6), {1: Prompt(np.zeros((0, 2)), np.zeros(0))}, SQUARE
            )
        )


@pytest.fixture
def short(sam, monkeypatch):
    """A GPU whose memory is too small for so many steps as the test says."""
    failures = []
    step = sam.network.track_step

    def fail(**arguments):
        if failures and arguments["frame_idx"] == failures[0]:
            failures.pop(0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(**arguments)

    monkeypatch.setattr(sam.network, "track_step", fail)
    return failures


def test_less_memory_has_to_do(sam, embeddings, short):
    known = {index: disc(50 + 3 * index, 60) for index in (0, 1, 2)}
    wanted, _ = run(sam, embeddings, known)
    short.append(4)
    notes = []
    found, asked = run(sam, embeddings, known, notes=notes)
    assert asked == [0, 1, 2, 3, 4, 5]
    assert notes == ["the GPU's memory is short: SAM 2 looked at 2 known slices at a time"]
    np.testing.assert_array_equal(found[3].logits, wanted[3].logits)
    assert np.abs(found[4].logits - wanted[4].logits).max() > 0
    assert np.isfinite(found[5].logits).all()


def test_where_that_does_not_help_either_the_error_is_told(sam, embeddings, short):
    short += [4, 4]
    with pytest.raises(torch.OutOfMemoryError):  # on the CPU already: there is nowhere to go
        run(sam, embeddings, {2: disc(56, 60)})
