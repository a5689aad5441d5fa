"""Cut-down Segment Anything models with random parameters, made of the package's own parts, not of ours."""

from functools import partial

import numpy as np
import torch
from torch import nn

from fewshot.features import torchvision_ops

torchvision_ops.ensure()
from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

SIZE, PATCH, DIM = 64, 8, 48


def scatter(module: nn.Module, seed: int = 0) -> None:
    """Random parameters, those that start at zero (relative positions, biases) as well."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.25 * torch.randn(value.shape, generator=generator) + (value.ndim == 1))


def sam(*, size=SIZE, patch=PATCH, width=40, depth=3, heads=5, window=3, everywhere=(1,), dim=DIM, mlp=56):
    """Unlike any published one in all its numbers, but for the decoder's heads."""
    side = size // patch
    model = Sam(
        ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=2.5,
            out_chans=dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=everywhere,
        ),
        PromptEncoder(dim, (side, side), (size, size), mask_in_chans=12),
        MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(3, dim, 8, mlp, attention_downsample_rate=3),
            num_multimask_outputs=4,
            iou_head_depth=4,
            iou_head_hidden_dim=20,
        ),
    )
    scatter(model)
    return model.eval()


def convolution(name: str, out: int, into: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """A convolution and its batch norm, as TinyViT's authors name them."""
    norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (out,))
    return {
        f"{name}.c.weight": (out, into, kernel, kernel),
        **{f"{name}.bn.{key}": size for key, size in norm.items()},
        f"{name}.bn.num_batches_tracked": (),
    }


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def mobile_sam_encoder() -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``image_encoder`` in mobile_sam.pt, from the published description of the network."""
    dims, depths, heads, windows = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
    shapes = convolution("patch_embed.seq.0", 32, 3, 3) | convolution("patch_embed.seq.2", 64, 32, 3)
    for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}"
            if stage == 0:
                shapes |= convolution(f"{block}.conv1", 4 * dim, dim, 1)
                shapes |= convolution(f"{block}.conv2", 4 * dim, 1, 3)
                shapes |= convolution(f"{block}.conv3", dim, 4 * dim, 1)
                continue
            shapes |= {f"{block}.attn.attention_biases": (heads[stage], windows[stage] ** 2)}
            shapes |= norm(f"{block}.attn.norm", dim) | linear(f"{block}.attn.qkv", 3 * dim, dim)
            shapes |= linear(f"{block}.attn.proj", dim, dim) | norm(f"{block}.mlp.norm", dim)
            shapes |= linear(f"{block}.mlp.fc1", 4 * dim, dim) | linear(f"{block}.mlp.fc2", dim, 4 * dim)
            shapes |= convolution(f"{block}.local_conv", dim, 1, 3)
        if stage < 3:
            following = dims[stage + 1]
            shapes |= convolution(f"layers.{stage}.downsample.conv1", following, dim, 1)
            shapes |= convolution(f"layers.{stage}.downsample.conv2", following, 1, 3)
            shapes |= convolution(f"layers.{stage}.downsample.conv3", following, following, 1)
    shapes |= norm("norm_head", 320) | linear("head", 1000, 320)
    shapes |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    shapes |= norm("neck.1", 256) | norm("neck.3", 256)
    return {f"image_encoder.{name}": size for name, size in shapes.items()}


def mobile_sam() -> dict[str, torch.Tensor]:
    """A state as mobile_sam.pt holds it, with random values; prompts and decoder are SAM's own."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.zeros(size, dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else 0.05 * torch.randn(size, generator=generator) + name.endswith(("running_var", "bn.weight"))
        for name, size in mobile_sam_encoder().items()
    }
    rest = nn.ModuleDict(
        {
            "prompt_encoder": PromptEncoder(256, (64, 64), (1024, 1024), mask_in_chans=16),
            "mask_decoder": MaskDecoder(
                transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048), iou_head_hidden_dim=256
            ),
        }
    )
    return state | rest.state_dict()


def picture(rows: int = SIZE, cols: int = SIZE, seed: int = 0) -> np.ndarray:
    """A grey image of 8 bits, uint8."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :cols]
    ball = 120 * ((y - rows / 2) ** 2 + (x - cols / 3) ** 2 < (rows / 4) ** 2)
    return (
        (ball + 40 * np.sin(x / 5) + 60 + 15 * generator.random((rows, cols))).clip(0, 255).astype(np.uint8)
    )


def same_parameters(model, reference: nn.Module) -> bool:
    """Whether a loaded model holds exactly these parameters."""
    state, wanted = model.network.state_dict(), reference.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)
