"""Segment Anything's networks, built as the tensors of a checkpoint tell, whatever their width and depth.

Kirillov et al., Segment Anything (2023); the modules are those of the package ``segment_anything``. Everything but
the decoder's number of heads can be read off names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from fewshot.features import torchvision_ops
from fewshot.features.formats.tensors import State

Architecture = dict[str, Any]
"""Arguments of ``segment_anything``'s modules: ``image_encoder``, ``prompt_encoder``, ``mask_decoder``,
``transformer``. With ``tiny_vit``, the image encoder is MobileSAM's and these are its arguments."""

DECODER_HEADS = 8
"""Attention heads of the decoder in all published models; no tensor tells their number."""

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""What SAM's images of three channels, 0 to 255, are normalised with."""


class MisfitError(Exception):
    """Tensors that do not make a Segment Anything model; says why."""


def tell(state: State, heads: int = DECODER_HEADS) -> Architecture:
    """The architecture that these parameters have.

    Args:
        state: parameters in ``segment_anything``'s naming.
        heads: of the decoder's attention.

    Raises:
        MisfitError: if parameters are missing or their shapes contradict each other.
    """
    from fewshot.refine.sam import tiny_vit

    if tiny_vit.is_tiny_vit(state):
        encoder = tiny_vit.tell(state)
        size, side = encoder["img_size"], encoder["img_size"] // tiny_vit.STRIDE
    else:
        encoder = _vision_transformer(state)
        size, side = encoder["img_size"], encoder["img_size"] // encoder["patch_size"]
    dim = shape(state, "mask_decoder.iou_token.weight")[1]
    if dim != shape(state, "image_encoder.neck.0.weight")[0]:
        raise MisfitError("the image encoder and the mask decoder differ in their channels")
    layers = "mask_decoder.transformer.layers"
    return {
        "tiny_vit" if tiny_vit.is_tiny_vit(state) else "image_encoder": encoder,
        "prompt_encoder": {
            "embed_dim": dim,
            "image_embedding_size": (side, side),
            "input_image_size": (size, size),
            "mask_in_chans": shape(state, "prompt_encoder.mask_downscaling.3.weight")[0],
        },
        "mask_decoder": {
            "num_multimask_outputs": shape(state, "mask_decoder.mask_tokens.weight")[0] - 1,
            "transformer_dim": dim,
            "iou_head_depth": count(state, "mask_decoder.iou_prediction_head.layers"),
            "iou_head_hidden_dim": shape(state, "mask_decoder.iou_prediction_head.layers.0.weight")[0],
        },
        "transformer": {
            "depth": count(state, layers),
            "embedding_dim": dim,
            "mlp_dim": shape(state, f"{layers}.0.mlp.lin1.weight")[0],
            "num_heads": heads,
            "attention_downsample_rate": dim
            // shape(state, f"{layers}.0.cross_attn_token_to_image.q_proj.weight")[0],
        },
    }


def _vision_transformer(state: State) -> dict[str, Any]:
    _, side, columns, dim = shape(state, "image_encoder.pos_embed", 4)
    _, channels, patch, width = shape(state, "image_encoder.patch_embed.proj.weight", 4)
    if side != columns or patch != width:
        raise MisfitError("images and patches must be squares")
    if channels != 3:
        raise MisfitError(f"it wants images of {channels} channels, SAM's have 3")
    depth = count(state, "image_encoder.blocks")
    blocks = [f"image_encoder.blocks.{index}" for index in range(depth)]
    # A table of relative positions has an entry for each distance within the window: 2 * side - 1.
    reach = [(shape(state, f"{block}.attn.rel_pos_h")[0] + 1) // 2 for block in blocks]
    windows = {length for length in reach if length < side}
    if len(windows) > 1:
        raise MisfitError(f"its blocks have windows of {len(windows)} sizes, SAM's have one")
    return {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": dim // shape(state, f"{blocks[0]}.attn.rel_pos_h")[1],
        # segment_anything cuts dim * ratio down to a whole number
        "mlp_ratio": (shape(state, f"{blocks[0]}.mlp.lin1.weight")[0] + 0.5) / dim,
        "out_chans": shape(state, "image_encoder.neck.0.weight")[0],
        "qkv_bias": f"{blocks[0]}.attn.qkv.bias" in state,
        "use_rel_pos": True,
        "window_size": windows.pop() if windows else 0,
        "global_attn_indexes": tuple(index for index, length in enumerate(reach) if length >= side),
    }


def build(architecture: Architecture) -> Any:
    """A ``segment_anything`` model of this architecture. Its parameters have no values yet: give it a state.

    Raises:
        ValueError, AssertionError, RuntimeError, TypeError: if there is no such architecture.
    """
    torchvision_ops.ensure()  # segment_anything and timm import torchvision
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    from fewshot.refine.sam.tiny_vit import TinyVitEncoder

    # Random values of 636 million parameters, overwritten at once, would take longer than reading the file.
    with torch.device("meta"):
        encoder = (
            ImageEncoderViT(**architecture["image_encoder"], norm_layer=partial(nn.LayerNorm, eps=1e-6))
            if "image_encoder" in architecture
            else nn.Identity()
        )
        prompts = PromptEncoder(**architecture["prompt_encoder"])
        decoder = MaskDecoder(
            **architecture["mask_decoder"], transformer=TwoWayTransformer(**architecture["transformer"])
        )
    if "tiny_vit" in architecture:
        encoder = TinyVitEncoder(**architecture["tiny_vit"])
    return Sam(encoder, prompts, decoder, list(PIXEL_MEAN), list(PIXEL_STD))


def fill(model: Any, state: State) -> None:
    """Give a model its parameters, all of them and no others, in float32.

    Raises:
        MisfitError: if some are missing, left over or of another shape.
    """
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise MisfitError(f"it lacks {_some(missing)}")
    if extra := sorted(state.keys() - wanted.keys()):
        raise MisfitError(f"it has more than Segment Anything ({_some(extra)}), perhaps adapters")
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            found, right = tuple(state[name].shape), tuple(value.shape)
            raise MisfitError(f"{name} has the shape {found} in place of {right}")
        if value.is_floating_point() and not state[name].is_floating_point():
            raise MisfitError(f"{name} holds whole numbers")
    # Assigned, not copied: the model may not have any memory yet, see `build`.
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()},
        assign=True,
    )


def shape(state: State, name: str, axes: int | None = None) -> tuple[int, ...]:
    """Shape of a parameter, of at least two axes (or ``axes``).

    Raises:
        MisfitError: if it is not there or has another number of axes.
    """
    if name not in state:
        raise MisfitError(f"it lacks {name}")
    found = tuple(state[name].shape)
    if (axes is not None and len(found) != axes) or len(found) < 2 or 0 in found:
        raise MisfitError(f"{name} has the shape {found}")
    return found


def count(state: Iterable[str], prefix: str) -> int:
    """How many numbered modules there are: ``prefix.0.``, ``prefix.1.``, ...

    Raises:
        MisfitError: if there are none.
    """
    found = {match[1] for name in state if (match := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
    if not found:
        raise MisfitError(f"it lacks {prefix}")
    return len(found)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
