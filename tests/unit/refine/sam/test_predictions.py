"""Our wrapper against the packages that it stands for: segment_anything's predictor, and transformers."""

import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional

from fewshot.refine.prompt import Prompt
from fewshot.refine.sam import Frame, load_sam
from tests.unit.refine.sam.published import SIZE, picture, scatter

ROWS, COLS = SIZE, 44
FRAME = Frame((ROWS, COLS), (ROWS, COLS))
NOTHING = {"points": np.zeros((0, 2)), "labels": np.zeros(0, int)}
POINTS = np.array([[30.0, 12.0], [40.0, 20.0], [3.0, 40.0], [10.5, 7.25]])
LABELS = np.array([1, 1, 0, 1])

PROMPTS = {
    "a point": Prompt(POINTS[:1], LABELS[:1]),
    "points": Prompt(POINTS, LABELS),
    "a box": Prompt(**NOTHING, box=(10, 5, 50, 30)),
    "points and a box": Prompt(POINTS, LABELS, box=(10, 5, 50, 30)),
}


@pytest.fixture(scope="module")
def predictor(original):
    from segment_anything import SamPredictor

    predictor = SamPredictor(original)
    predictor.set_image(np.repeat(picture(ROWS, COLS)[..., None], 3, axis=-1))
    return predictor


@pytest.fixture(scope="module")
def embedding(loaded):
    return loaded.encode(picture(ROWS, COLS)[None] / np.float32(255))[0]


def test_the_embedding_is_that_of_the_predictor(predictor, embedding):
    theirs = predictor.get_image_embedding()[0].numpy()
    assert embedding["image"].dtype == np.float16
    assert embedding["image"].shape == theirs.shape
    np.testing.assert_allclose(embedding["image"], theirs, atol=2e-3, rtol=2e-3)
    assert theirs.std() > 0.1


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("case", PROMPTS)
def test_logits_are_those_of_the_predictor(loaded, predictor, embedding, case, multimask):
    prompt = PROMPTS[case]
    predictor.features = torch.from_numpy(embedding["image"])[None].float()  # rounded alike
    box = prompt.box and np.array(prompt.box)[[1, 0, 3, 2]]
    wanted, quality, _ = predictor.predict(
        point_coords=prompt.points[:, ::-1].copy() if len(prompt.points) else None,
        point_labels=prompt.labels if len(prompt.points) else None,
        box=box,
        multimask_output=multimask,
        return_logits=True,
    )
    found = loaded.predict(embedding, [prompt], FRAME, multimask=multimask)
    assert found.logits.dtype == found.quality.dtype == np.float32
    assert found.logits.shape == (1, 4 if multimask else 1, ROWS, COLS)
    np.testing.assert_allclose(found.logits[0], wanted, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found.quality[0], quality, atol=1e-4, rtol=1e-4)
    assert wanted.std() > 0.01


def test_a_mask_goes_in_as_in_the_predictor(loaded, predictor):
    square = loaded.encode(picture()[None] / np.float32(255))[0]
    predictor.set_image(np.repeat(picture()[..., None], 3, axis=-1))
    predictor.features = torch.from_numpy(square["image"])[None].float()
    mask = np.full((SIZE // 2, SIZE // 2), 5.0, np.float32)
    frame = Frame((100, 100), (SIZE, SIZE))
    prompt = Prompt(np.array([[50.0, 20.0]]), np.array([1]), mask=np.full(frame.native, 5.0, np.float32))
    # The predictor counts positions from pixels' corners, we from their centres.
    place = (np.array([[20.5, 50.5]]) * SIZE / 100 - 0.5) * 100 / SIZE
    predictor.original_size = frame.native
    wanted, _, _ = predictor.predict(place, np.array([1]), None, mask[None], False, return_logits=True)
    found = loaded.predict(square, [prompt], frame).logits[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
    without = loaded.predict(square, [Prompt(prompt.points, prompt.labels)], frame).logits[0]
    assert np.abs(without - found).max() > 1e-2


@pytest.fixture(scope="module")
def hugging(tmp_path_factory):
    """A cut-down SAM of transformers and the folder it was saved to."""
    from transformers import SamConfig, SamModel

    model = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 40,
                "output_channels": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 5,
                "image_size": SIZE,
                "patch_size": 8,
                "mlp_ratio": 2.0,
                "window_size": 3,
                "global_attn_indexes": [2],
                "num_pos_feats": 16,
            },
            prompt_encoder_config={
                "hidden_size": 32,
                "image_size": SIZE,
                "patch_size": 8,
                "mask_input_channels": 8,
            },
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 48,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 24,
                "iou_head_depth": 4,
                "layer_norm_eps": 1e-5,  # as in segment_anything
            },
        )
    ).eval()
    scatter(model)
    with torch.no_grad():  # one tensor under two names
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(
            model.shared_image_embedding.positional_embedding
        )
    folder = tmp_path_factory.mktemp("hugging") / "sam-vit-tiny"
    model.save_pretrained(folder)
    return model, folder


def pixels(image: np.ndarray) -> torch.Tensor:
    from fewshot.refine.sam.architecture import PIXEL_MEAN, PIXEL_STD

    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (PIXEL_MEAN, PIXEL_STD))
    whole = (torch.from_numpy(image).float().expand(1, 3, -1, -1) - mean) / std
    return functional.pad(whole, (0, SIZE - image.shape[1], 0, SIZE - image.shape[0]))


def compare(ours, model, prompt) -> None:
    image = picture(ROWS, COLS)
    embedding = ours.encode(image[None] / np.float32(255))[0]
    with torch.no_grad():
        wanted = model.get_image_embeddings(pixels(image))
        np.testing.assert_allclose(embedding["image"], wanted[0], atol=2e-3, rtol=2e-3)
        answer = model(
            image_embeddings=torch.from_numpy(embedding["image"])[None].float(),
            input_points=torch.tensor(prompt.points[:, ::-1].copy(), dtype=torch.float32)[None, None],
            input_labels=torch.tensor(prompt.labels)[None, None],
            input_boxes=torch.tensor(prompt.box, dtype=torch.float32)[None, None, [1, 0, 3, 2]]
            if prompt.box
            else None,
            multimask_output=True,
        )
    masks = functional.interpolate(answer.pred_masks[0], (SIZE, SIZE), mode="bilinear")[0, :, :ROWS, :COLS]
    found = ours.predict(embedding, [prompt], FRAME, multimask=True)
    np.testing.assert_allclose(found.logits[0], masks, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(found.quality[0], answer.iou_scores[0, 0], atol=1e-3, rtol=1e-3)
    assert masks.std() > 0.01


@pytest.mark.parametrize("case", ["points", "points and a box"])
def test_a_folder_of_transformers_gives_its_masks(hugging, case):
    """With the decoder's heads of its config.json."""
    model, folder = hugging
    compare(load_sam(str(folder), device="cpu", dtype=torch.float32), model, PROMPTS[case])


def test_files_of_transformers_hold_the_same_model(hugging, tmp_path):
    model, folder = hugging
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((folder / "config.json").read_text())
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    alone = load_sam(str(folder / "model.safetensors"), device="cpu")
    whole, other = (load_sam(str(path), device="cpu") for path in (folder, pickled))
    assert whole.digest == other.digest == alone.digest


def test_a_folder_tells_how_images_go_in(hugging, tmp_path):
    folder = shutil.copytree(hugging[1], tmp_path / "folder")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "image_mean": [0.5]}')
    image = picture()[None] / np.float32(255)
    told, plain = (load_sam(str(path), device="cpu") for path in (folder, hugging[1]))
    np.testing.assert_array_equal(told._pixels(torch.from_numpy(image))[0, 1], image[0])
    assert told.digest != plain.digest


def test_a_file_of_transformers_alone_gives_its_masks(hugging, tmp_path):
    """No tensor tells the decoder's heads; all published models have eight."""
    from transformers import SamModel

    model, folder = hugging
    config = model.config.to_dict()
    config["mask_decoder_config"]["num_attention_heads"] = 8
    eight = SamModel(type(model.config).from_dict(config)).eval()
    eight.load_state_dict(model.state_dict())
    compare(
        load_sam(str(folder / "model.safetensors"), device="cpu", dtype=torch.float32),
        eight,
        PROMPTS["points"],
    )
