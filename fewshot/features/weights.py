"""Reads backbone checkpoints in the formats people have: Meta's, Hugging Face's, timm's and ours.

Everything becomes timm's parameter naming plus an architecture, told by the file where it tells it (our header,
Hugging Face's ``config.json``) and else read off the tensors' shapes. No code from a file is ever run, see
`fewshot.features.formats.tensors`.
"""

from __future__ import annotations

import json
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.features.formats import huggingface
from fewshot.features.formats.meta import Architecture, backbone_alone, to_timm
from fewshot.features.formats.tensors import State, read_tensors

HEADER_KEY = "fewshot_backbone"
"""Metadata key under which our safetensors files keep their architecture as JSON."""


def read_checkpoint(path: Path) -> tuple[State, Architecture]:
    """Parameters in timm's naming, and the architecture that `fewshot.features.registry.build_model` takes.

    Args:
        path: ``.safetensors``, ``.pth``/``.pt``/``.bin``, or a Hugging Face folder with ``config.json``.

    Raises:
        FewshotError: if the file is missing, damaged, or not a DINOv2 or DINOv3 vision transformer.
    """
    if not path.exists():
        raise FewshotError(
            f"Backbone file {path} does not exist; give the path of a checkpoint or a registered name."
        )
    told: Architecture = {}
    if path.is_dir():
        state, told = huggingface.read_folder(path)
    else:
        state, metadata = read_tensors(path)
        if HEADER_KEY in metadata:
            return state, _header(metadata[HEADER_KEY], path)
    state = backbone_alone(state)
    try:
        if huggingface.is_huggingface(state):
            state = huggingface.to_meta(state)
        state, architecture = to_timm(state, path)
    except (IndexError, RuntimeError, ValueError) as error:
        raise FewshotError(
            f"{path} holds tensors whose shapes do not fit together ({error}); give an unmodified checkpoint."
        ) from error
    return state, architecture | told


def _header(text: str, path: Path) -> Architecture:
    try:
        architecture = json.loads(text)
    except ValueError:
        architecture = None
    if not isinstance(architecture, dict):
        raise FewshotError(
            f"The header of {path} does not tell an architecture; make or download the file again."
        )
    return architecture
