"""The networks of DINOv2 and DINOv3, as timm has them and with the features that their publishers' code gives."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.features import torchvision_ops

torchvision_ops.ensure()  # timm imports torchvision

from timm.layers.mlp import SwiGLUPacked  # noqa: E402
from timm.layers.pos_embed import resample_abs_pos_embed  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

DINOV2_EPS, DINOV3_EPS = 1e-6, 1e-5
"""Of the layer norms, where the checkpoint does not say."""
DINOV3_THETA = 100.0


class PlainDINOv2(VisionTransformer):
    """DINOv2 without registers.

    For a grid other than the trained one, positions are interpolated bicubically. Meta and transformers antialias for
    the models with registers only, timm for all. On a cut-down model with random weights, timm's features were up to
    0.2 away from transformers' (of values up to 4), also for larger grids, because torch's antialiased bicubic kernel
    is another one; these here are equal.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        assert self.cls_token is not None
        height, width = x.shape[1:3]
        positions = resample_abs_pos_embed(
            self.pos_embed,
            new_size=[height, width],
            old_size=list(self.patch_embed.grid_size),
            num_prefix_tokens=1,
            antialias=False,
        )
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1) + positions


def build(architecture: dict[str, Any]) -> Any:
    """A model with random parameters for images of any size.

    Args:
        architecture: as `fewshot.features.weights.read_checkpoint` tells it: arguments of timm's VisionTransformer
            (DINOv2) or Eva (``family`` is ``dinov3``), with ``norm_eps``, ``mlp`` and ``rope_theta`` in plain values.

    Raises:
        TypeError, ValueError, AssertionError: if there is no such architecture.
    """
    arguments = dict(architecture)
    third = arguments.pop("family", "dinov2") == "dinov3"
    eps = arguments.pop("norm_eps", DINOV3_EPS if third else DINOV2_EPS)
    arguments |= {
        "norm_layer": partial(nn.LayerNorm, eps=eps),
        "num_classes": 0,
        "global_pool": "",
        "dynamic_img_size": True,
    }
    if third:
        return Eva(
            num_reg_tokens=arguments.pop("reg_tokens"),
            rope_temperature=arguments.pop("rope_theta", DINOV3_THETA),
            rope_type="dinov3",
            rope_rotate_half=True,
            use_rot_pos_emb=True,
            use_abs_pos_emb=False,
            init_values=1e-5,
            **arguments,
        )
    if arguments.pop("mlp", None) == "swiglu":
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    kind = VisionTransformer if arguments.get("reg_tokens") else PlainDINOv2
    return kind(**arguments)
