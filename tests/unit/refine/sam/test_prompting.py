"""Prompts of many shapes in one call, slices of any form, precision and devices."""

import numpy as np
import pytest
import torch

from fewshot.errors import FewshotError
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam import Frame, load_sam
from fewshot.refine.sam.promptable import PROMPTS
from fewshot.refine.sam.prompts import OUTSIDE, boxes_of, masks_of, points_of, to_image
from tests.unit.refine.sam.published import picture

CPU = torch.device("cpu")
NATIVE = (100, 75)
FRAME = Frame(NATIVE, (64, 48))


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Prompts of differing numbers of points, some with a box, a mask or no points at all."""
    generator = np.random.default_rng(seed)
    made = []
    for index in range(count):
        points = generator.random((index % 4, 2)) * NATIVE
        box = (10.0, 5.0, 60.0, 40.0 + index) if index % 3 == 0 else None
        mask = generator.normal(size=NATIVE).astype(np.float32) if index % 4 == 0 or index % 5 == 0 else None
        made.append(Prompt(points, generator.integers(0, 2, len(points)), box, mask))
    return made


@pytest.fixture(scope="module")
def embedding(tiny_sam):
    return tiny_sam.encode(picture(64, 48)[None] / np.float32(255))[0]


def test_an_objects_mask_does_not_depend_on_the_others(tiny_sam, embedding):
    asked = prompts(2 * PROMPTS + 5)
    together = tiny_sam.predict(embedding, asked, FRAME, multimask=True)
    assert together.logits.shape == (len(asked), 3, *NATIVE)
    for index, prompt in enumerate(asked):
        alone = tiny_sam.predict(embedding, [prompt], FRAME, multimask=True)
        np.testing.assert_allclose(together.logits[index], alone.logits[0], atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(together.quality[index], alone.quality[0], atol=1e-5, rtol=1e-4)
    assert np.abs(together.logits[1] - together.logits[2]).max() > 1e-2


def test_memory_is_bounded(tiny_sam, embedding, monkeypatch):
    decoder, sizes = tiny_sam.network.mask_decoder, []
    decode = decoder.forward

    def watched(**inputs):
        sizes.append(len(inputs["sparse_prompt_embeddings"]))
        return decode(**inputs)

    monkeypatch.setattr(decoder, "forward", watched)
    one = Prompt(np.array([[5.0, 5.0]]), np.array([1]))
    tiny_sam.predict(embedding, [one] * (2 * PROMPTS + 1), FRAME)
    assert sizes == [PROMPTS, PROMPTS, 1]


def test_no_prompt_gives_no_mask(tiny_sam, embedding):
    found = tiny_sam.predict(embedding, [], FRAME)
    assert found.logits.shape == (0, 1, *NATIVE)


def test_a_prompt_that_says_nothing_is_told(tiny_sam, embedding):
    with pytest.raises(FewshotError, match="no point, box or mask; give one"):
        tiny_sam.predict(embedding, [Prompt(np.zeros((0, 2)), np.zeros(0, int))], FRAME)


def test_a_batch_is_encoded_as_one_by_one(tiny_sam):
    images = np.stack([picture(64, 48, seed) for seed in range(3)]) / np.float32(255)
    together = tiny_sam.encode(images)
    assert len(together) == 3
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(found["image"], tiny_sam.encode(image[None])[0]["image"])
    whole = tiny_sam.network.image_encoder(tiny_sam._pixels(torch.from_numpy(images)))
    np.testing.assert_allclose(np.stack([e["image"] for e in together]), whole, atol=2e-3, rtol=2e-3)
    assert np.abs(together[0]["image"] - together[1]["image"]).max() > 0.05
    assert tiny_sam.encode(images[:0]) == []


def test_an_image_larger_than_the_model_is_refused(tiny_sam):
    with pytest.raises(ValueError, match="at most 64 pixels"):
        tiny_sam.encode(np.zeros((1, 64, 65), np.float32))


def test_centres_of_pixels_stay_centres():
    """A slice of 100 pixels at 64: its corners, half a pixel before the first centre, are the image's corners."""
    corners = np.array([[-0.5, -0.5], [99.5, 74.5], [49.5, 37.0]])
    found = to_image(corners, FRAME)
    np.testing.assert_allclose(found, [[-0.5, -0.5], [47.5, 63.5], [23.5, 31.5]])
    asked = [Prompt(corners, np.array([1, 0, 1]), box=(0, 1, 99, 74))]
    points, labels = points_of(asked, FRAME, CPU)
    assert points[0, 1].tolist() == [47.5, 63.5]
    assert labels.tolist() == [[1, 0, 1]]
    np.testing.assert_allclose(boxes_of(asked, FRAME, CPU)[0], [0.46, -0.18, 47.18, 63.18], atol=1e-5)


def test_a_mask_prompt_lies_where_the_content_does():
    mask = np.full(NATIVE, -4.0, np.float32)
    mask[50:, :] = 4.0  # the lower half
    low = masks_of([Prompt(np.zeros((0, 2)), np.zeros(0), mask=mask)], FRAME, 64, (32, 32), CPU)
    assert low.shape == (1, 1, 32, 32)
    assert torch.allclose(low[0, 0, :15, :23], torch.tensor(-4.0))
    assert torch.allclose(low[0, 0, 17:, :23], torch.tensor(4.0))
    assert torch.allclose(low[0, 0, :, 25:], torch.tensor(OUTSIDE))


@pytest.mark.parametrize("native", [(64, 64), (32, 64), (100, 75), (7, 200)])
def test_masks_come_back_to_the_native_slice(tiny_sam, native, monkeypatch):
    """The decoder is told to answer with the column's number: it must arrive where it belongs."""
    content = tuple(max(1, round(64 * n / max(native))) for n in native)
    ramp = (torch.arange(32) * 2 + 0.5).expand(32, 32)  # the image's x at the low-resolution pixels
    monkeypatch.setattr(
        tiny_sam.network.mask_decoder,
        "forward",
        lambda **inputs: (ramp.expand(1, 1, 32, 32), torch.ones(1, 1)),
    )
    embedding = tiny_sam.encode(np.zeros((1, *content), np.float32))[0]
    found = tiny_sam.predict(embedding, [Prompt(np.zeros((1, 2)), np.ones(1))], Frame(native, content)).logits
    assert found.shape == (1, 1, *native)
    x = (np.arange(native[1]) + 0.5) * content[1] / native[1] - 0.5
    np.testing.assert_allclose(found[0, 0, native[0] // 2], np.clip(x, 0.5, 62.5), atol=0.51)
    inside = (x > 2) & (x < content[1] - 3)
    np.testing.assert_allclose(found[0, 0, native[0] // 2][inside], x[inside], atol=1e-3)


def test_the_content_alone_matters(tiny_sam):
    """What is padded has the value that SAM pads with, whatever the slice's form."""
    image = picture(64, 48) / np.float32(255)
    pixels = tiny_sam._pixels(torch.from_numpy(image[None]))
    assert pixels.shape == (1, 3, 64, 64)
    assert not pixels[..., 48:].any()
    np.testing.assert_allclose(pixels[0, 0, :, :48], (image * 255 - 123.675) / 58.395, rtol=1e-4)


def test_bfloat16_is_close_and_says_so(monkeypatch):
    slow = load_sam("random-tiny", device="cpu", dtype=torch.bfloat16)
    assert slow.dtype == torch.float32  # a processor that cannot do it quickly
    monkeypatch.setenv("FEWSHOT_DTYPE", "bfloat16")
    exact, rough = (load_sam("random-tiny", device="cpu", dtype=d) for d in (torch.float32, torch.bfloat16))
    image = picture(64, 48)[None] / np.float32(255)
    assert (exact.dtype, rough.dtype) == (torch.float32, torch.bfloat16)
    first, second = (model.encode(image)[0]["image"] for model in (exact, rough))
    assert 0 < np.abs(first - second).max() < 0.2


def test_moving_keeps_the_answers(tiny_sam, embedding):
    asked = [Prompt(np.array([[5.0, 5.0]]), np.array([1]))]
    before = tiny_sam.predict(embedding, asked, FRAME)
    assert tiny_sam.to(CPU) is tiny_sam
    assert (tiny_sam.device, tiny_sam.dtype) == (CPU, torch.float32)
    np.testing.assert_array_equal(tiny_sam.predict(embedding, asked, FRAME).logits, before.logits)
