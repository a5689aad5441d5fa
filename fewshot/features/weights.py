"""Reads backbone checkpoints in the formats people have: Meta's, Hugging Face's and ours.

Everything becomes Meta's DINOv2 parameter naming (which timm understands) plus an architecture, told by the file
where it tells it (our header, Hugging Face's ``config.json``) and else read off the tensors' shapes. No pickle is
executed: ``.pth`` files are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fewshot.errors import FewshotError

HEADER_KEY = "fewshot_backbone"
"""Metadata key under which our safetensors files keep their architecture as JSON."""

DINO_HEAD_WIDTH = 64
"""All published DINOv2 models use 64 channels per attention head; Meta's files do not store the number of heads."""

State = dict[str, Tensor]
Architecture = dict[str, Any]


def read_checkpoint(path: Path) -> tuple[State, Architecture]:
    """Parameters (Meta's or timm's naming) and architecture (arguments of timm's VisionTransformer).

    Args:
        path: ``.safetensors``, ``.pth``/``.pt``/``.bin``, or a Hugging Face folder with ``config.json``.

    Raises:
        FewshotError: if the file is missing, damaged, or not a DINOv2-style vision transformer.
    """
    if not path.exists():
        raise FewshotError(
            f"Backbone file {path} does not exist; give the path of a checkpoint or a registered name."
        )
    if path.is_dir():
        return _read_huggingface(path)
    state, metadata = _read_tensors(path)
    if HEADER_KEY in metadata:
        return state, json.loads(metadata[HEADER_KEY])
    state = _from_huggingface(state) if _is_huggingface(state) else state
    return state, infer_architecture(state, path)


def infer_architecture(state: State, path: Path) -> Architecture:
    """The shape of a DINOv2 vision transformer, from its parameters' shapes alone."""
    try:
        dim = state["cls_token"].shape[-1]
        patch = state["patch_embed.proj.weight"].shape
        tokens = state["pos_embed"].shape[1]
    except (KeyError, IndexError):
        raise FewshotError(
            f"{path} is not a DINOv2-style backbone (no cls_token, patch_embed.proj or pos_embed in it); "
            "give a DINOv2 checkpoint in Meta's, Hugging Face's or fewshot's format."
        ) from None
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    side = round((tokens - 1) ** 0.5)
    architecture: Architecture = {
        "patch_size": patch[-1],
        "in_chans": patch[1],
        "embed_dim": dim,
        "depth": len(blocks),
        "num_heads": max(1, dim // DINO_HEAD_WIDTH),
        "img_size": side * patch[-1],
        "reg_tokens": registers,
        "no_embed_class": registers > 0,  # timm folds the class token's position into the class token then
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in state else None,
    }
    if "blocks.0.mlp.w12.weight" in state:
        architecture |= {"mlp": "swiglu", "mlp_ratio": state["blocks.0.mlp.w12.weight"].shape[0] / dim}
    elif "blocks.0.mlp.fc1.weight" in state:
        architecture["mlp_ratio"] = state["blocks.0.mlp.fc1.weight"].shape[0] / dim
    return architecture


def _read_tensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way there is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FewshotError(
            f"Backbone file {path} cannot be read ({reason}); it may be truncated or not a plain checkpoint of "
            "tensors: download it again."
        ) from error
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FewshotError(
            f"Backbone file {path} does not hold a dictionary of tensors; give a model checkpoint."
        )
    return {name.removeprefix("backbone."): value for name, value in state.items()}, {}


def _read_huggingface(folder: Path) -> tuple[State, Architecture]:
    config_file = folder / "config.json"
    weights = next(
        (folder / n for n in ("model.safetensors", "pytorch_model.bin") if (folder / n).exists()), None
    )
    if not config_file.exists() or weights is None:
        raise FewshotError(
            f"{folder} is not a Hugging Face model folder: it needs config.json and model.safetensors "
            "(or pytorch_model.bin)."
        )
    try:
        config = json.loads(config_file.read_text())
    except json.JSONDecodeError as error:
        raise FewshotError(
            f"{config_file} is not valid JSON ({error}); download the folder again."
        ) from error
    if not str(config.get("model_type", "")).startswith("dinov2"):
        raise FewshotError(
            f"{folder} holds a model of type '{config.get('model_type')}'; only dinov2 and dinov2_with_registers fit."
        )
    state = _from_huggingface(_read_tensors(weights)[0])
    return state, infer_architecture(state, folder) | {"num_heads": config["num_attention_heads"]}


def _is_huggingface(state: State) -> bool:
    return any(name.endswith("embeddings.cls_token") for name in state)


_HUGGINGFACE_TO_META = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)


def _from_huggingface(state: State) -> State:
    """Hugging Face's parameter names and split query, key, value -> Meta's names and one ``qkv``."""
    converted: State = {}
    for name, value in state.items():
        name = name.removeprefix("dinov2.").removeprefix("dinov2_with_registers.")
        if name.startswith("classifier."):
            continue
        for pattern, replacement in _HUGGINGFACE_TO_META:
            name = re.sub(pattern, replacement, name)
        converted[name] = value
    for name in [name for name in converted if ".attention.attention.query." in name]:
        parts = [converted.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        converted[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return converted
