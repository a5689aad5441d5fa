"""Attention in bfloat16 on a CPU: a few queries at a time, so that their scores stay in the processor's cache.

torch's fused attention computes bfloat16 on a CPU more slowly than plain matrix products, and the plain way writes
all scores of a slice to memory. Chunks of queries avoid both; `make bench` has the figures.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

QUERIES = 256
"""Queries at once: with 1,000 to 3,000 keys and a few heads, their scores fill 1 to 4 MB in bfloat16."""


def use_chunked_attention(model: Any) -> None:
    """Let the plain attention modules of a timm VisionTransformer attend in chunks; others stay as they are."""
    from timm.layers.attention import Attention

    for block in model.blocks:
        attention: Any = block.attn
        if type(attention) is Attention and getattr(attention, "gate", None) is None:
            attention.forward = MethodType(attend_in_chunks, attention)  # type: ignore[method-assign]


def attend_in_chunks(attention: Any, tokens: Tensor, *_: object, **__: object) -> Tensor:
    """What timm's ``Attention.forward`` computes without mask and dropout: ``[B, N, C]`` -> ``[B, N, C]``."""
    batch, count = tokens.shape[:2]
    heads, width = attention.num_heads, attention.head_dim
    split = attention.qkv(tokens).view(batch, count, 3, heads, width).permute(2, 0, 3, 1, 4)
    queries, keys, values = split.unbind(0)
    queries = attention.q_norm(queries).contiguous()
    keys = (attention.k_norm(keys) * attention.scale).transpose(-2, -1).contiguous()
    values = values.contiguous()
    attended = torch.empty(batch, count, heads, width, dtype=tokens.dtype, device=tokens.device)
    for start in range(0, count, QUERIES):
        scores = torch.matmul(queries[:, :, start : start + QUERIES], keys).softmax(-1)
        attended[:, start : start + QUERIES] = torch.matmul(scores, values).transpose(1, 2)
    return attention.proj(attention.norm(attended.flatten(2)))
