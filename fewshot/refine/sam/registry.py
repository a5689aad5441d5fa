"""Segment Anything models by name: the official ones, our own small one, and random ones for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot.errors import FewshotError
from fewshot.features.device import choose_device
from fewshot.features.download import Weights, fetch, present
from fewshot.features.embedded import random_state
from fewshot.features.names import name_or_path
from fewshot.progress import Progress
from fewshot.refine.sam.model import SamModel

EMBEDDED = Path(__file__).parents[2] / "weights" / "embedded-sam.safetensors"
"""Our own small SAM; ships with the package."""

AUTO = "auto"
"""Stands for a name that `fewshot.refine.sam.at_hand.choose_sam` finds."""

RANDOM_NOTE = "random weights"

TINY: dict[str, Any] = {
    "image_encoder": {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "out_chans": 32,
        "qkv_bias": True,
        "use_rel_pos": True,
        "window_size": 3,
        "global_attn_indexes": (1,),
    },
    "prompt_encoder": {
        "embed_dim": 32,
        "image_embedding_size": (8, 8),
        "input_image_size": (64, 64),
        "mask_in_chans": 8,
    },
    "mask_decoder": {
        "num_multimask_outputs": 3,
        "transformer_dim": 32,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 32,
    },
    "transformer": {
        "depth": 2,
        "embedding_dim": 32,
        "mlp_dim": 64,
        "num_heads": 8,
        "attention_downsample_rate": 2,
    },
}
"""SAM's architecture, cut down so far that tests of everything around it are quick."""


@dataclass(frozen=True)
class Entry:
    """One model that can be asked for by name.

    Attributes:
        kind: ``sam`` or ``sam2``.
        weights: where they can be downloaded, for the official ones.
        unit: takes images in [0, 1] without SAM's mean and deviation.
    """

    description: str
    kind: str = "sam"
    weights: Weights | None = None
    unit: bool = False


def _hub(repository: str, file: str = "model.safetensors") -> Weights:
    return Weights(repository, file=file, option="--sam FILE")


def _sam2(word: str, parameters: str) -> Entry:
    file = f"sam2.1_hiera_{word}.pt"
    repository = f"facebook/sam2.1-hiera-{word.replace('_', '-')}"
    return Entry(f"official SAM 2.1 Hiera, {parameters} parameters", "sam2", _hub(repository, file))


SAMS: dict[str, Entry] = {
    "embedded": Entry("small, 256 pixels, ships with fewshot; for trials, the walker does more"),
    "sam_vit_b": Entry("official SAM ViT-B, 94 M parameters", weights=_hub("facebook/sam-vit-base")),
    "sam_vit_l": Entry("official SAM ViT-L, 312 M parameters", weights=_hub("facebook/sam-vit-large")),
    "sam_vit_h": Entry("official SAM ViT-H, 641 M parameters", weights=_hub("facebook/sam-vit-huge")),
    "medsam": Entry(
        "MedSAM: SAM ViT-B, trained on with medical images and boxes",
        weights=_hub("wanglab/medsam-vit-base", "pytorch_model.bin"),
        unit=True,  # as its own MedSAM_Inference.py does
    ),
    "mobile_sam": Entry(
        "MobileSAM: SAM's decoder with a TinyViT encoder, 10 M parameters",
        weights=_hub("dhkim2810/MobileSAM", "mobile_sam.pt"),
    ),
    "sam2.1_hiera_tiny": _sam2("tiny", "39 M"),
    "sam2.1_hiera_small": _sam2("small", "46 M"),
    "sam2.1_hiera_base_plus": _sam2("base_plus", "81 M"),
    "sam2.1_hiera_large": _sam2("large", "224 M"),
    "random-tiny": Entry("random weights, for tests of everything else"),
    "random-tiny-2": Entry("SAM 2.1 with random weights, for tests of everything else", "sam2"),
}


def check_sam(name: str) -> str:
    """A registered name or ``auto`` as it is, a file or folder as its full path.

    Raises:
        FewshotError: if there is neither, with what may have been meant.
    """
    return name_or_path(name, [*SAMS, AUTO], "SAM")


def sam_at_hand(name: str) -> bool:
    """Whether a model can be loaded without network: a file, in the cache of downloads, embedded or random."""
    if name == "embedded":
        return EMBEDDED.exists()
    if name in SAMS:
        weights = SAMS[name].weights
        return weights is None or present(weights)
    return Path(name).expanduser().exists()


def load_sam(
    name: str = "embedded",
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> SamModel:
    """A frozen Segment Anything model by registered name or from a checkpoint file or folder.

    Args:
        name: a key of ``SAMS``, ``auto``, or the path of a checkpoint: of SAM in Meta's or Hugging Face's format,
            of MobileSAM, of SAM 2 in Meta's format, or of our own.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: precision of the image encoder; by default bfloat16 where the processor has it.
        progress: told of a download (``download``, in megabytes); without it a bar on stderr shows it.

    Raises:
        FewshotError: unknown name, no network for a download, or a file that holds no SAM.
    """
    name = check_sam(name)
    if name == AUTO:
        from fewshot.refine.sam.at_hand import choose_sam

        chosen = choose_sam()
        if chosen is None:
            raise FewshotError(
                "No SAM weights are on this machine; give a name, which downloads them, or a checkpoint file."
            )
        name = chosen
    place = choose_device(device)
    if name == "random-tiny":
        return _random(name, place, dtype)
    if name == "random-tiny-2":
        return _load_sam2(name, None, place, dtype)
    return _load(name, _file(name, progress), place, dtype)


def _file(name: str, progress: Progress | None) -> Path:
    if name == "embedded":
        if not EMBEDDED.exists():
            raise FewshotError(
                f"The embedded SAM is not part of this installation ({EMBEDDED} is missing); install fewshot again, "
                "or give another SAM by name or file."
            )
        return EMBEDDED
    if name in SAMS:
        weights = SAMS[name].weights
        assert weights
        return fetch(name, weights, progress=progress)
    return Path(name)


def _load(name: str, path: Path, device: torch.device, dtype: torch.dtype | None) -> SamModel:
    from fewshot.refine.sam.checkpoint import read_checkpoint
    from fewshot.refine.sam.promptable import SegmentAnything

    checkpoint = read_checkpoint(path)
    if checkpoint.kind == "sam2":
        return _load_sam2(name, checkpoint.state, device, dtype)
    entry = SAMS.get(name)
    # MedSAM's published file differs from SAM's in nothing but its name (medsam_vit_b.pth).
    medsam = entry is None and "medsam" in path.name.lower()
    return SegmentAnything(
        name,
        checkpoint.model,
        device=device,
        dtype=dtype,
        unit=checkpoint.unit or medsam or (entry is not None and entry.unit),
        note="taken for MedSAM by its file's name: images go in as 0 to 1" if medsam else None,
    )


def _random(name: str, device: torch.device, dtype: torch.dtype | None) -> SamModel:
    from fewshot.refine.sam import architecture
    from fewshot.refine.sam.promptable import SegmentAnything

    network = architecture.build(TINY)
    state = random_state(network)
    frequencies = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    state[frequencies] *= state[frequencies].shape[1] ** 0.5  # of deviation 1, else all positions look alike
    architecture.fill(network, state)
    return SegmentAnything(name, network, device=device, dtype=dtype, note=RANDOM_NOTE)


def _load_sam2(name: str, state: Any, device: torch.device, dtype: torch.dtype | None) -> SamModel:
    from fewshot.refine.sam2 import load_sam2

    return load_sam2(name, state, device=str(device), dtype=dtype)
