"""SAM as Hugging Face's transformers keeps it (``facebook/sam-vit-base``): names, and what only its folder tells."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError
from fewshot.features.formats.tensors import State, read_tensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin")

SHARED = "shared_image_embedding.positional_embedding"
"""Is only there in transformers' naming."""

NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"^(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
        (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
        (r"^vision_encoder\.layers\.(\d+)\.layer_norm([12])\.", r"image_encoder.blocks.\1.norm\2."),
        (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
        (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
        (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
        (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
        (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
        (r"^vision_encoder\.", "image_encoder."),
        (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
        (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
        (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
        (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
        (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
        (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
        (
            r"^mask_decoder\.transformer\.layers\.(\d+)\.layer_norm([1-4])\.",
            r"mask_decoder.transformer.layers.\1.norm\2.",
        ),
        (
            r"^mask_decoder\.transformer\.layer_norm_final_attn\.",
            "mask_decoder.transformer.norm_final_attn.",
        ),
        (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
        (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
        (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    )
)

HEAD = re.compile(r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.(.*)$")
"""Small networks whose first and last layer have names of their own there."""


@dataclass(frozen=True)
class Told:
    """What a folder tells besides tensors.

    Attributes:
        heads: attention heads of the decoder.
        unit: images go in as they are, 0 to 1, without the mean and deviation of SAM.
    """

    heads: int | None = None
    unit: bool = False


def read_folder(folder: Path) -> tuple[State, Told]:
    """Parameters as they are named there, and what its JSON files tell.

    Raises:
        FewshotError: if files are missing or damaged, or the folder holds another model.
    """
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None or not (folder / "config.json").exists():
        raise FewshotError(
            f"{folder} is not a Hugging Face model folder: it needs config.json and {WEIGHTS[0]} (or {WEIGHTS[1]}); "
            "download the whole folder, or give a checkpoint file."
        )
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "sam":
        raise FewshotError(
            f"{folder} holds a model of type '{kind}', and SAM's is 'sam'; give a folder of that type, or a "
            "checkpoint file in Meta's format."
        )
    decoder = config.get("mask_decoder_config")
    heads = decoder.get("num_attention_heads") if isinstance(decoder, dict) else None
    images = folder / "preprocessor_config.json"
    plain = images.exists() and _read_json(images).get("do_normalize") is False
    return read_tensors(file, "SAM file")[0], Told(heads if isinstance(heads, int) else None, plain)


def is_huggingface(state: State) -> bool:
    """Whether the names are those of transformers."""
    return SHARED in state


def to_original(state: State) -> State:
    """Names of transformers -> those of ``segment_anything``."""
    inner: dict[str, int] = {}
    for name in state:
        if (found := HEAD.match(name)) and found[2].startswith("layers.") and name.endswith(".weight"):
            inner[found[1]] = inner.get(found[1], 0) + 1
    converted: State = {}
    for name, value in state.items():
        for pattern, replacement in NAMES:
            name = pattern.sub(replacement, name)
        if found := HEAD.match(name):
            converted[f"{found[1]}.{_numbered(found[2], inner.get(found[1], 0))}"] = value
        else:
            converted[name] = value
    return converted


def _numbered(layer: str, inner: int) -> str:
    """``proj_in``, ``layers.0``, ``proj_out`` -> ``layers.0``, ``layers.1``, ``layers.2``."""
    part, _, rest = layer.partition(".")
    if part == "layers":
        index, _, rest = rest.partition(".")
        return f"layers.{int(index) + 1}.{rest}"
    places = {"proj_in": 0, "proj_out": inner + 1}
    return f"layers.{places[part]}.{rest}" if part in places else layer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read as JSON ({error}); download the folder again.") from error
    if not isinstance(content, dict):
        raise FewshotError(f"{path} does not hold a JSON object; download the folder again.")
    return content
