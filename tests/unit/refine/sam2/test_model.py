import time

import numpy as np
import pytest
import torch

from fewshot.refine.prompt import BACKGROUND, FOREGROUND, Prompt
from fewshot.refine.sam.model import Frame

SQUARE = Frame((128, 128), (128, 128))
POINTS = np.array([[50.0, 60.0], [20.0, 90.0], [55.0, 65.0]])
LABELS = np.array([FOREGROUND, BACKGROUND, FOREGROUND])
ROUGH = np.where(np.hypot(*(np.mgrid[:128, :128] - 55)) < 20, 4.0, -4.0).astype(np.float32)

PROMPTS = {
    "points": Prompt(POINTS, LABELS),
    "box": Prompt(POINTS[:0], LABELS[:0], box=(30, 40, 70, 80)),
    "box and points": Prompt(POINTS, LABELS, box=(30, 40, 70, 80)),
    "mask": Prompt(POINTS[:0], LABELS[:0], mask=ROUGH),
    "mask and point": Prompt(POINTS[:1], LABELS[:1], mask=ROUGH),
}


@pytest.fixture
def predictor(sam, frames):
    """The package's own, which has seen the first slice."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    of_package = SAM2ImagePredictor(sam.network)
    of_package._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]  # it knows images of 1024 only
    of_package.set_image(np.repeat(np.round(frames[0] * 255).astype(np.uint8)[..., None], 3, axis=-1))
    return of_package


def test_an_embedding_has_what_later_steps_need_in_half_precision(sam, frames):
    embeddings = sam.encode(frames[:2])
    assert len(embeddings) == 2
    assert {key: (value.shape, value.dtype) for key, value in embeddings[0].items()} == {
        "features": ((32, 8, 8), np.float16),
        "fine": ((4, 32, 32), np.float16),
        "medium": ((8, 16, 16), np.float16),
    }
    alone = sam.encode(frames[1:2])[0]
    for key, value in alone.items():
        np.testing.assert_allclose(value, embeddings[1][key], atol=0.01)
    assert np.abs(embeddings[0]["features"] - embeddings[1]["features"]).max() > 0.05


def test_a_slice_is_encoded_quickly(sam, frames):
    sam.encode(frames[:1])
    start = time.process_time()
    sam.encode(frames[:1])
    assert time.process_time() - start < 0.3


def test_smaller_slices_lie_at_the_top_left_and_the_rest_is_black(sam, frames):
    small = frames[:1, :90, :128]
    padded = np.zeros((1, 128, 128), np.float32)
    padded[:, :90] = small
    for key, value in sam.encode(small)[0].items():
        np.testing.assert_array_equal(value, sam.encode(padded)[0][key])


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.usefixtures("exact")
def test_square_slices_get_the_answer_of_the_package(sam, frames, predictor, kind, multimask):
    prompt = PROMPTS[kind]
    low = None
    if prompt.mask is not None:
        low = torch.nn.functional.interpolate(
            torch.from_numpy(prompt.mask)[None, None], size=(32, 32), mode="bilinear", antialias=True
        )[0].numpy()
    box = None if prompt.box is None else np.array(prompt.box)[[1, 0, 3, 2]]
    wanted, quality, _ = predictor.predict(
        point_coords=prompt.points[:, ::-1].copy() if len(prompt.labels) else None,
        point_labels=prompt.labels if len(prompt.labels) else None,
        box=box,
        mask_input=low,
        multimask_output=multimask,
        return_logits=True,
    )
    got = sam.predict(sam.encode(frames[:1])[0], [prompt], SQUARE, multimask=multimask)
    assert got.logits.shape == (1, 3 if multimask else 1, 128, 128)
    np.testing.assert_allclose(got.logits[0], wanted, atol=1e-4)
    np.testing.assert_allclose(got.quality[0], quality, atol=1e-5)
    assert wanted.std() > 0.1


def test_half_precision_hardly_changes_the_answer(sam, frames, predictor):
    wanted, quality, _ = predictor.predict(
        POINTS[:, ::-1].copy(), LABELS, multimask_output=True, return_logits=True
    )
    got = sam.predict(sam.encode(frames[:1])[0], [PROMPTS["points"]], SQUARE, multimask=True)
    np.testing.assert_allclose(got.logits[0], wanted, atol=0.02)
    np.testing.assert_allclose(got.quality[0], quality, atol=0.01)


def test_many_prompts_at_once_are_answered_as_one_by_one(sam, frames):
    embedding = sam.encode(frames[:1])[0]
    prompts = [*PROMPTS.values(), *(Prompt(POINTS + shift, LABELS) for shift in range(20))]
    together = sam.predict(embedding, prompts, SQUARE)
    for row, prompt in enumerate(prompts):
        alone = sam.predict(embedding, [prompt], SQUARE)
        np.testing.assert_allclose(together.logits[row], alone.logits[0], atol=1e-4)
        np.testing.assert_allclose(together.quality[row], alone.quality[0], atol=1e-5)
    assert np.abs(together.logits[0] - together.logits[1]).max() > 0.005


def test_no_prompt_no_mask(sam, frames):
    masks = sam.predict(sam.encode(frames[:1])[0], [], SQUARE, multimask=True)
    assert masks.logits.shape == (0, 3, 128, 128)
    assert masks.quality.shape == (0, 3)


def test_masks_and_prompts_are_in_native_pixels(sam, frames):
    """A slice of half the size, doubled for the model, is told and answered at half the size."""
    embedding = sam.encode(frames[:1, :96])[0]
    native, shown = Frame((48, 64), (96, 128)), Frame((96, 128), (96, 128))
    points = np.array([[10.0, 20.0], [30.0, 40.0]])
    small = sam.predict(embedding, [Prompt(points, np.array([1, 0]))], native)
    centres = (points + 0.5) * 2 - 0.5
    large = sam.predict(embedding, [Prompt(centres, np.array([1, 0]))], shown)
    assert small.logits.shape == (1, 1, 48, 64)
    halves = large.logits.reshape(1, 1, 48, 2, 64, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(small.logits, halves, atol=1e-4)
    np.testing.assert_array_equal(small.quality, large.quality)


def test_a_rough_mask_says_nothing_beyond_the_slice(sam, frames):
    embedding = sam.encode(frames[:1, :96])[0]
    part = Prompt(POINTS[:1], LABELS[:1], mask=ROUGH[:96])
    whole = np.full((128, 128), -10.0, np.float32)
    whole[:96] = ROUGH[:96]
    got = sam.predict(embedding, [part], Frame((96, 128), (96, 128)))
    wanted = sam.predict(embedding, [Prompt(POINTS[:1], LABELS[:1], mask=whole)], SQUARE)
    np.testing.assert_allclose(got.logits, wanted.logits[:, :, :96], atol=1e-5)


def test_it_can_be_moved(sam, frames):
    before = sam.encode(frames[:1])[0]
    assert sam.to(torch.device("cpu")) is sam
    assert sam.device == torch.device("cpu")
    np.testing.assert_array_equal(sam.encode(frames[:1])[0]["features"], before["features"])


def test_bfloat16_is_close_to_float32(sam, frames):
    from fewshot.refine.sam2 import load_sam2

    half = load_sam2("random-tiny-2", None, device="cpu", dtype=torch.bfloat16)
    assert half.digest == sam.digest
    exact, rough = sam.encode(frames[:1])[0], half.encode(frames[:1])[0]
    spread = exact["features"].astype(float).std()
    difference = np.abs(exact["features"].astype(float) - rough["features"])
    assert 0 < difference.mean() < 0.05 * spread
