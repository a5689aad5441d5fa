"""The architectures of SAM 2, told apart by the tensors of a checkpoint and built by the ``sam2`` package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fewshot.features import torchvision_ops

MEDSAM2 = "medsam2"
MEDSAM2_SIZE = 512
"""MedSAM2 (Ma et al., 2025) is SAM 2.1 tiny trained with images of this size, which no tensor tells."""

POSTPROCESSING: dict[str, Any] = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}
"""What the package's own ``build_sam2_video_predictor`` adds to its configuration files; it also fills holes, with a
CUDA extension that its wheels lack."""

TINY: dict[str, Any] = {
    "image_size": 128,
    "image_encoder": {
        "trunk": {"embed_dim": 16, "stages": [1, 1, 2, 1], "global_att_blocks": [3]},
        "neck": {
            "d_model": 32,
            "backbone_channel_list": [128, 64, 32, 16],
            "position_encoding": {"num_pos_feats": 32},
        },
    },
    "memory_attention": {
        "d_model": 32,
        "num_layers": 2,
        "layer": {
            "d_model": 32,
            "dim_feedforward": 64,
            "self_attention": {"embedding_dim": 32},
            "cross_attention": {"embedding_dim": 32, "kv_in_dim": 16},
        },
    },
    "memory_encoder": {
        "in_dim": 32,
        "out_dim": 16,
        "position_encoding": {"num_pos_feats": 16},
        "mask_downsampler": {"embed_dim": 32},
        "fuser": {"layer": {"dim": 32}},
    },
}
"""Where the cut-down model for tests differs from SAM 2.1 tiny."""


@dataclass(frozen=True)
class Architecture:
    """A network of the ``sam2`` package.

    Attributes:
        file: configuration inside the package, below ``configs``.
        changes: where the network differs from it.
    """

    file: str
    changes: Mapping[str, Any]


STRIDE = 16
"""Pixels per cell of an embedding."""

RANDOM_TINY = Architecture("sam2.1/sam2.1_hiera_t.yaml", TINY)

_TRUNKS = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}
"""Width and number of blocks of the image encoder -> the letter in its file's name."""

_PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
_BLOCK = re.compile(r"image_encoder\.trunk\.blocks\.(\d+)\.")
_ONLY_IN_2_1 = "obj_ptr_tpos_proj.weight"


def recognise(name: str, state: Mapping[str, Tensor]) -> Architecture | None:
    """The architecture that a checkpoint's tensors have; None if it is no SAM 2.

    Args:
        name: registered name or file; MedSAM2 is known by it.
        state: tensors by name.
    """
    blocks = {int(found[1]) for key in state if (found := _BLOCK.match(key))}
    if _PATCHES not in state or not blocks:
        return None
    letter = _TRUNKS.get((state[_PATCHES].shape[0], max(blocks) + 1))
    if letter is None:
        return None
    version = "2.1" if _ONLY_IN_2_1 in state else "2"
    medical = MEDSAM2 in re.sub(r"[^a-z0-9]", "", Path(name).name.lower())
    changes = {"image_size": MEDSAM2_SIZE} if medical else {}
    file = f"sam2.1/sam2.1_hiera_{letter}.yaml" if version == "2.1" else f"sam2/sam2_hiera_{letter}.yaml"
    return Architecture(file, changes)


def build(architecture: Architecture) -> Any:
    """A network with random weights, on the CPU.

    The package's file is read here and not composed by hydra, whose configuration is one for the whole process and
    may be somebody else's.
    """
    torchvision_ops.ensure()  # sam2 imports torchvision
    import sam2
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    file = Path(sam2.__file__).parent / "configs" / architecture.file
    model = OmegaConf.merge(OmegaConf.load(file).model, POSTPROCESSING, dict(architecture.changes))
    grid = model.image_size // STRIDE
    for attention in ("self_attention", "cross_attention"):
        model.memory_attention.layer[attention].feat_sizes = [grid, grid]
    return instantiate(model).eval().requires_grad_(False)
