"""Parameters in Meta's or timm's naming -> timm's naming and the architecture that their shapes tell.

Meta's code and its checkpoints are the source: github.com/facebookresearch/dinov2 and dinov3; timm's own checkpoint
filters (``models/vision_transformer.py``, ``models/eva.py``) rename likewise.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError
from fewshot.features.formats.tensors import State

Architecture = dict[str, Any]

HEAD_WIDTH = 64
"""Channels per attention head of all published DINOv2 and DINOv3 models; Meta's files do not tell their number."""

OFFER = "give a DINOv2 or DINOv3 checkpoint in Meta's, Hugging Face's, timm's or fewshot's format"

HEADS = ("dino_head.", "ibot_head.", "head.", "linear_head.", "classifier.", "projectors.", "local_cls_norm.")
"""Parameters after the backbone; features are taken before them."""
UNUSED = ("mask_token", "rope_embed.periods", "rope.periods")
"""Used in training only, or computed."""

CLASS_TOKEN = re.compile(r"^(.*?)(?:embeddings\.)?cls_token$")
OTHER_KINDS = (
    (r"layer1\.0\.conv1\.weight", "a ResNet"),
    (r"visual\.|vision_model\.|text_model\.|logit_scale", "a CLIP model"),
    (r"image_encoder\.|vision_encoder\.|mask_decoder\.", "a SAM model"),
    (r"stages\.\d+\.|downsample_layers\.", "a convolutional network (ConvNeXt)"),
    (r"blocks\.0\.attn\.qkv\.weight", "another vision transformer, perhaps DINO (v1), MAE or CLIP"),
)


def backbone_alone(state: State) -> State:
    """The backbone's parameters without prefixes and heads; of a training checkpoint, the teacher's.

    Training programs put ``teacher.backbone.``, ``module.`` and the like before every name, and DINOv2's groups
    blocks in chunks: ``blocks.CHUNK.BLOCK.``.
    """
    prefixes = [match[1] for name in state if (match := CLASS_TOKEN.match(name))]
    prefix = min(prefixes, key=lambda text: ("teacher" not in text, len(text)), default="")
    alone = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value
        for name, value in alone.items()
        if not name.startswith(HEADS)
    }


def to_timm(state: State, path: Path) -> tuple[State, Architecture]:
    """Names as timm has them, and the architecture.

    Raises:
        FewshotError: if these are not the parameters of a DINOv2 or DINOv3 vision transformer.
    """
    if "storage_tokens" in state or ("blocks.0.gamma_1" in state and "pos_embed" not in state):
        return _dinov3(state, path)
    return _dinov2(state, path)


def _dinov2(state: State, path: Path) -> tuple[State, Architecture]:
    _require(
        state, path, "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma", "norm.weight"
    )
    renamed = {
        name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): value
        for name, value in state.items()
        if name not in UNUSED
    }
    if "register_tokens" in renamed:
        # Meta adds the first position to the class token, and registers have none: timm keeps the sum.
        positions = renamed["pos_embed"]
        renamed["reg_token"] = renamed.pop("register_tokens")
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:].contiguous()
    registers = renamed["reg_token"].shape[1] if "reg_token" in renamed else 0
    places = renamed["pos_embed"].shape[1] - (0 if registers else 1)
    side = math.isqrt(max(0, places))
    if side**2 != places or not side:
        raise FewshotError(f"{path} has {places} positions of patches, which is no square grid; {OFFER}.")
    architecture = _common(renamed, path) | {
        "img_size": side * renamed["patch_embed.proj.weight"].shape[-1],
        "reg_tokens": registers,
        "no_embed_class": registers > 0,
        "init_values": 1e-5,
    }
    wide, narrow = renamed["blocks.0.mlp.fc1.weight"], renamed.get("blocks.0.mlp.fc2.weight")
    if narrow is not None and narrow.ndim == 2 and wide.shape[0] == 2 * narrow.shape[1]:
        architecture["mlp"] = "swiglu"
    return renamed, architecture


def _dinov3(state: State, path: Path) -> tuple[State, Architecture]:
    if any(
        name.startswith(("blocks.0.mlp.w1.", "blocks.0.mlp.gate_proj.", "blocks.0.mlp.fc1_g."))
        for name in state
    ):
        raise FewshotError(
            f"{path} is a DINOv3 model with gated feed-forward layers (S+, H+ or 7B); give DINOv3 S/16, B/16 or L/16."
        )
    renamed: State = {}
    for name, value in state.items():
        if name in UNUSED or name.endswith(".bias_mask"):
            continue
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        if name.endswith(".attn.qkv.bias"):
            queries, keys, values = value.chunk(3)
            masked = f"{name}_mask" in state  # Meta's layer then multiplies the keys' bias by zero
            if keys.any() and not masked:
                raise FewshotError(f"{path} has a bias of the keys, as no published DINOv3 has; {OFFER}.")
            block = name.removesuffix("qkv.bias")
            renamed |= {f"{block}q_bias": queries, f"{block}v_bias": values}
        else:
            renamed[name.replace("storage_tokens", "reg_token")] = value
    _require(renamed, path, "cls_token", "patch_embed.proj.weight", "blocks.0.gamma_1", "norm.weight")
    biases = [name for name in renamed if name.endswith((".q_bias", ".v_bias"))]
    if not any(renamed[name].any() for name in biases):  # so in the published S, B and L
        renamed = {name: value for name, value in renamed.items() if name not in biases}
        biases = []
    if "reg_token" in renamed and not renamed["reg_token"].shape[1]:
        del renamed["reg_token"]
    return renamed, _common(renamed, path) | {
        "family": "dinov3",
        "reg_tokens": renamed["reg_token"].shape[1] if "reg_token" in renamed else 0,
        "qkv_bias": bool(biases),
    }


def _common(state: State, path: Path) -> Architecture:
    dim = state["cls_token"].shape[-1]
    patch = state["patch_embed.proj.weight"].shape
    wide = state.get("blocks.0.mlp.fc1.weight")
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    if len(patch) != 4 or patch[2] != patch[3] or patch[1] not in (1, 3) or wide is None:
        _refuse(state, path, "square patches of one or three channels, or a feed-forward layer")
    assert wide is not None
    return {
        "patch_size": patch[-1],
        "in_chans": patch[1],
        "embed_dim": dim,
        "depth": len(blocks),
        "num_heads": max(1, dim // HEAD_WIDTH),
        "mlp_ratio": (wide.shape[0] + 0.5) / dim,  # timm cuts dim * ratio down to a whole number
    }


def _require(state: State, path: Path, *names: str) -> None:
    if missing := [name for name in names if name not in state]:
        _refuse(state, path, ", ".join(missing))


def _refuse(state: State, path: Path, missing: str) -> None:
    for pattern, kind in OTHER_KINDS:
        if any(re.match(pattern, name) for name in state):
            raise FewshotError(
                f"{path} holds {kind}, not a DINOv2 or DINOv3 backbone (it lacks {missing}); {OFFER}."
            )
    some = ", ".join(sorted(state)[:3])
    raise FewshotError(
        f"{path} is not a DINOv2 or DINOv3 backbone (it lacks {missing} and holds {some}); {OFFER}."
    )
