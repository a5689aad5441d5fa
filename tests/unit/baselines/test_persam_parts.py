"""PerSAM's steps, each against a computation by hand or by the plain decoder."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from fewshot.baselines.persam.cascade import Cascade, Wanted, best, box_of
from fewshot.baselines.persam.fine_tuning import learn_weights
from fewshot.baselines.persam.guidance import attend, guided
from fewshot.baselines.persam.target import (
    guidance_map,
    learn,
    location_prior,
    on_slice,
    patches_inside,
    similarity,
)
from fewshot.refine.prompt import Prompt
from fewshot.refine.sam import Frame, Masks, load_sam

FRAME = Frame(native=(30, 40), content=(48, 64))


@pytest.fixture(scope="module")
def sam():
    return load_sam("random-tiny", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def embedding(sam):
    return sam.encode(np.random.default_rng(0).random((1, 48, 64), np.float32))[0]


@pytest.fixture
def prompt():
    return Prompt(np.array([[10.0, 12.0], [25.0, 30.0]]), np.array([1, 0]))


# Target feature and location prior


def test_the_target_feature_is_the_mean_over_the_labels_patches():
    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(5, 4, 4, generator=generator) for _ in range(2)]
    inside = [torch.zeros(4, 4, dtype=torch.bool) for _ in range(2)]
    inside[0][1, 2] = inside[0][1, 3] = inside[1][0, 0] = True
    target = learn(features, inside)
    first = (features[0][:, 1, 2] + features[0][:, 1, 3]) / 2
    expected = (first + features[1][:, 0, 0]) / 2
    torch.testing.assert_close(target.feature, expected)
    torch.testing.assert_close(target.direction, expected / expected.norm())
    own = [features[0][:, 1, 2], features[0][:, 1, 3], features[1][:, 0, 0]]
    torch.testing.assert_close(
        target.own, torch.stack([cosine_similarity(of, expected, dim=0) for of in own])
    )
    lowest, middle, _ = sorted(target.own.tolist())
    for quantile, bound in ((0.0, lowest), (0.5, middle)):
        assert target.shown_by(torch.tensor([0.0, bound]), quantile)
        assert not target.shown_by(torch.tensor([0.0, bound - 1e-4]), quantile)
    peaks = (first + features[0][:, 1, 2:].amax(1) + 2 * features[1][:, 0, 0]) / 4
    torch.testing.assert_close(learn(features, inside, peaks=True).feature, peaks)


def test_patches_are_inside_that_the_label_mostly_covers():
    mask = np.zeros((30, 40), bool)
    mask[5:15, 10:19] = (
        True  # pixels 8 to 24 and 16 to 30.4 of the model's image: patches 1, 2 and 2, (80 % of) 3
    )
    inside = patches_inside(mask, FRAME, 64, (8, 8))
    assert {tuple(at) for at in inside.nonzero().tolist()} == {(1, 2), (1, 3), (2, 2), (2, 3)}


@pytest.mark.parametrize("native", [(30, 40), (300, 400)])
def test_a_label_smaller_than_a_patch_has_the_patch_that_shows_most_of_it(native):
    mask = np.zeros(native, bool)
    mask[native[0] // 3, native[1] // 2] = True
    inside = patches_inside(mask, Frame(native, (48, 64)), 64, (8, 8))
    assert inside.nonzero().tolist() == [[2, 4]]


def test_points_are_the_most_and_the_least_similar_pixels():
    patches = torch.zeros(8, 8)
    patches[2, 5], patches[4, 1], patches[7, 7] = 1, -1, 9  # the last one lies in the padding
    alike = on_slice(patches, FRAME, 64)
    assert alike.shape == (30, 40)
    prompt = location_prior(alike)
    assert prompt.labels.tolist() == [1, 0]
    for point, patch, value in zip(prompt.points, [(2, 5), (4, 1)], (alike.max(), alike.min()), strict=True):
        row, col = point.astype(int)
        assert alike[row, col] == value
        # a pixel of 1.6 of the model's image; within the patch
        assert (int((row + 0.5) * 1.6 / 8), int((col + 0.5) * 1.6 / 8)) == patch
    assert location_prior(alike, negative=False).labels.tolist() == [1]


def test_similarity_is_the_cosine():
    features, direction = torch.randn(6, 3, 4), torch.randn(6)
    direction = direction / direction.norm()
    expected = cosine_similarity(features, direction[:, None, None], dim=0)
    torch.testing.assert_close(similarity(features, direction), expected)


def test_the_guidance_map_is_the_standardised_similarity_and_nothing_in_the_padding():
    patches = torch.randn(8, 8)
    alike = on_slice(patches, FRAME, 64)
    found = guidance_map(patches, alike, FRAME, 64).reshape(8, 8)
    expected = torch.sigmoid((patches - alike.mean()) / alike.std())
    torch.testing.assert_close(found[:6], expected[:6])
    assert not found[6:].any()


# Guidance inside the decoder


def test_switched_off_the_decoder_gives_what_it_always_gives(sam, embedding, prompt):
    plain = sam.predict(embedding, [prompt], FRAME)
    found = Cascade(sam, FRAME, 1).decode(embedding, [Wanted(prompt)])
    np.testing.assert_array_equal(found[0], plain.logits[0, 0])


def test_guidance_changes_the_mask_and_leaves_no_trace(sam, embedding, prompt):
    transformer = sam.network.mask_decoder.transformer
    plain = sam.predict(embedding, [prompt], FRAME).logits
    attention, feature = torch.zeros(64), torch.randn(32, generator=torch.Generator().manual_seed(1))
    attention[18] = 5.0
    changed = []
    for given in ((attention, None), (None, feature), (attention, feature)):
        with guided(transformer, *given):
            changed.append(sam.predict(embedding, [prompt], FRAME).logits)
        np.testing.assert_array_equal(sam.predict(embedding, [prompt], FRAME).logits, plain)
    for index, one in enumerate(changed):
        assert all(abs(one - other).max() > 1e-4 for other in [plain, *changed[:index]])
    with pytest.raises(ZeroDivisionError), guided(transformer, attention, feature):
        raise ZeroDivisionError
    np.testing.assert_array_equal(sam.predict(embedding, [prompt], FRAME).logits, plain)


def test_guided_attention_is_the_softmax_of_weights_and_map(sam):
    module = sam.network.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 32, generator=generator) for n in (3, 7, 7))
    attention = torch.rand(7, generator=generator)
    with torch.inference_mode():
        found = attend(module, q, k, v, attention)
        parts = []
        for head in range(8):  # two channels each
            own = slice(2 * head, 2 * head + 2)
            query, key, value = (
                module.q_proj(q)[..., own],
                module.k_proj(k)[..., own],
                module.v_proj(v)[..., own],
            )
            weights = torch.softmax(torch.einsum("bic,bjc->bij", query, key) / 2**0.5, -1)
            parts.append(torch.softmax(weights + attention, -1) @ value)
        torch.testing.assert_close(found, module.out_proj(torch.cat(parts, -1)))


def test_the_target_feature_goes_to_tokens_later_blocks_and_the_last_attention(sam):
    """By hand: the transformer's own parts in its own order, with the feature added where the authors add it."""
    transformer = sam.network.mask_decoder.transformer
    generator = torch.Generator().manual_seed(0)
    image, position = (torch.randn(1, 32, 8, 8, generator=generator) for _ in range(2))
    tokens, feature = torch.randn(1, 6, 32, generator=generator), torch.randn(32, generator=generator)
    with torch.inference_mode():
        with guided(transformer, None, feature):
            found = transformer(image, position, tokens)
        keys, places = (of.flatten(2).permute(0, 2, 1) for of in (image, position))
        start = tokens + feature
        queries, keys = transformer.layers[0](queries=start, keys=keys, query_pe=start, key_pe=places)
        queries = queries + feature
        queries, keys = transformer.layers[1](queries=queries, keys=keys, query_pe=start, key_pe=places)
        seen = transformer.final_attn_token_to_image(q=queries + start + feature, k=keys + places, v=keys)
        torch.testing.assert_close(found[0], transformer.norm_final_attn(queries + seen))
        torch.testing.assert_close(found[1], keys)


# After the first mask


def test_the_cascade_is_plain_predictions_with_mask_and_box(sam, embedding, prompt):
    feature = torch.randn(32, generator=torch.Generator().manual_seed(1))
    wanted = Wanted(prompt, torch.rand(64, generator=torch.Generator().manual_seed(2)), feature)
    first, second, third = (Cascade(sam, FRAME, n).decode(embedding, [wanted])[0] for n in (1, 2, 3))
    assert (first > 0).any()
    asked = Prompt(prompt.points, prompt.labels, mask=first)
    np.testing.assert_array_equal(second, best(sam.predict(embedding, [asked], FRAME, multimask=True))[0])
    asked = Prompt(prompt.points, prompt.labels, mask=second, box=box_of(second > 0))
    np.testing.assert_array_equal(third, best(sam.predict(embedding, [asked], FRAME, multimask=True))[0])


def test_the_best_candidate_is_the_one_the_model_expects_most_of():
    logits = np.arange(2 * 3).reshape(2, 3, 1, 1).astype(np.float32)
    found = best(Masks(logits, np.array([[0.1, 0.9, 0.2], [0.5, 0.1, 0.4]], np.float32)))
    assert found.ravel().tolist() == [1, 3]


def test_the_box_is_from_the_first_to_the_last_pixel():
    mask = np.zeros((9, 9), bool)
    mask[2, 3] = mask[6, 5] = True
    assert box_of(mask) == (2, 3, 6, 5)


# PerSAM-F


def test_fine_tuning_prefers_the_mask_that_fits():
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:12] = True
    whole, part = np.ones_like(truth), np.zeros_like(truth)
    part[5:8, 5:8] = True
    candidates = np.stack([np.where(of, 4.0, -4.0) for of in (whole, truth, part)]).astype(np.float32)
    weights, loss = learn_weights([candidates], [truth])
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights.argmax() == 1
    start = np.tensordot(np.full(3, 1 / 3), candidates, 1)
    assert ((np.tensordot(weights, candidates, 1) > 0) == truth).all()
    assert loss < float(_dice_loss(start, truth))


def _dice_loss(logits, mask):
    found = 1 / (1 + np.exp(-logits))
    return 1 - (2 * (found * mask).sum() + 1) / (found.sum() + mask.sum() + 1)
