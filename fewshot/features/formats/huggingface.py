"""Model folders of Hugging Face's transformers: DINOv2 with and without registers, and DINOv3."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from fewshot.errors import FewshotError
from fewshot.features.formats.tensors import State, read_tensors

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Tells for each tensor which of several files holds it."""
PICKLED = "pytorch_model.bin"

TO_META = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
        (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
        (r"^(?:encoder\.|model\.)?layer\.(\d+)\.", r"blocks.\1."),
        (r"\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.", r".attn.\1."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.weights_out\.", ".mlp.w3."),
        (r"^layernorm\.", "norm."),
    )
)
"""Names of transformers -> Meta's. DINOv3's feed-forward names depend on its kind, see `to_meta`."""


def read_folder(folder: Path) -> tuple[State, dict[str, Any]]:
    """Parameters as they are named there, and what ``config.json`` says that tensors cannot tell.

    Returns:
        state, and ``num_heads``, ``norm_eps`` and (DINOv3) ``rope_theta``; nothing of these from a folder of timm's,
        whose models are the published ones.

    Raises:
        FewshotError: if files are missing or damaged, or the folder holds another model.
    """
    config_file = folder / "config.json"
    if not config_file.exists() or not any((folder / name).exists() for name in (WEIGHTS, INDEX, PICKLED)):
        raise FewshotError(
            f"{folder} is not a Hugging Face model folder: it needs config.json and {WEIGHTS} (or {PICKLED}); "
            "download the whole folder, or give a checkpoint file."
        )
    config = _read_json(config_file)
    kind = config.get("model_type")
    if kind is None and "architecture" in config:  # timm's
        return _read_weights(folder), {}
    if kind not in MODEL_TYPES:
        raise FewshotError(
            f"{folder} holds a model of type '{kind}', and backbones are {', '.join(MODEL_TYPES)}; give one of these."
        )
    if config.get("hidden_act", "gelu") != "gelu" or config.get("key_bias"):
        what = "key_bias" if config.get("key_bias") else f"hidden_act {config['hidden_act']}"
        raise FewshotError(
            f"{config_file} says {what}, which no published model has; give a published model."
        )
    try:
        told = {
            "num_heads": int(config["num_attention_heads"]),
            "norm_eps": float(config.get("layer_norm_eps", 1e-5 if kind == "dinov3_vit" else 1e-6)),
        }
        if kind == "dinov3_vit":
            told["rope_theta"] = float(config.get("rope_theta", 100.0))
    except (KeyError, TypeError, ValueError) as error:
        raise FewshotError(
            f"{config_file} lacks a number that the model needs ({error}); download the folder again."
        ) from error
    return _read_weights(folder), told


def is_huggingface(state: State) -> bool:
    """Whether the names are those of transformers."""
    return "embeddings.cls_token" in state


def to_meta(state: State) -> State:
    """Names of transformers and split query, key, value -> Meta's names and one ``qkv``."""
    converted: State = {}
    third = "embeddings.position_embeddings" not in state
    for name, value in state.items():
        for pattern, replacement in TO_META:
            name = pattern.sub(replacement, name)
        if third and name == "register_tokens":
            name = "storage_tokens"
        if third and ".mlp.gate_proj." not in name:
            name = name.replace(".mlp.up_proj.", ".mlp.fc1.").replace(".mlp.down_proj.", ".mlp.fc2.")
        converted[name] = value
    for name in [name for name in converted if name.endswith(".attn.q.weight")]:
        block = name.removesuffix("q.weight")
        for kind in ("weight", "bias"):
            parts = [converted.pop(f"{block}{part}.{kind}", None) for part in "qkv"]
            like = next((part for part in parts if part is not None), None)
            if like is not None:  # DINOv3 has no bias of the keys
                converted[f"{block}qkv.{kind}"] = torch.cat(
                    [torch.zeros_like(like) if p is None else p for p in parts]
                )
    return converted


def _read_weights(folder: Path) -> State:
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return read_tensors(next(folder / n for n in (WEIGHTS, PICKLED) if (folder / n).exists()))[0]
    files = sorted({str(name) for name in _read_json(folder / INDEX).get("weight_map", {}).values()})
    missing = [name for name in files if not (folder / Path(name).name).exists()]
    if missing or not files:
        raise FewshotError(
            f"{folder} lacks {', '.join(missing) or 'the files'} that {INDEX} names; download the whole folder again."
        )
    state: State = {}
    for name in files:
        state |= read_tensors(folder / Path(name).name)[0]
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read as JSON ({error}); download the folder again.") from error
    if not isinstance(content, dict):
        raise FewshotError(f"{path} does not hold a JSON object; download the folder again.")
    return content
