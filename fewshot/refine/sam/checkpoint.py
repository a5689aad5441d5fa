"""Reads SAM checkpoints in the formats people have, and tells what they are.

Everything of the first Segment Anything becomes a ``segment_anything`` model: Meta's ViT-B, L and H, fine-tuned or
cut down (MedSAM, MedicoSAM), MobileSAM, Hugging Face's, and our own small one. No code from a file is ever run, see
`fewshot.features.formats.tensors`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError
from fewshot.features.formats.tensors import State, read_tensors
from fewshot.features.weights import HEADER_KEY as BACKBONE_KEY
from fewshot.refine.sam import architecture, huggingface, small, tiny_vit
from fewshot.refine.sam.architecture import MisfitError

OFFER = "give a checkpoint of SAM, MedSAM, MobileSAM or SAM 2 with all its parameters"

ENCODER = re.compile(r"^(.*?)(?:image_encoder|vision_encoder)\.")
NORMALISATION = ("pixel_mean", "pixel_std")
"""Some programs keep them among the parameters."""

OTHER_KINDS = (
    (r"vision_encoder\.backbone\.", "SAM 2 in Hugging Face's format; give Meta's .pt file"),
    (r"detector\.|.*sam3", "SAM 3"),
    (
        r".*(cls_token|blocks\.0\.ls1\.gamma)",
        "a vision transformer such as DINOv2, without prompts and a mask decoder",
    ),
    (r"visual\.|text_model\.|logit_scale", "a CLIP model"),
    (r"layer1\.0\.conv1\.weight", "a ResNet"),
    (r".*(decoder|up\d|upconv|model\.0\.conv)", "a segmentation network such as a U-Net"),
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        kind: ``sam`` or ``sam2``.
        model: the network with its parameters, for ``sam``.
        state: the parameters as they were read, for ``sam2``.
        unit: images go in as they are, 0 to 1, without SAM's mean and deviation.
    """

    kind: str
    model: Any = None
    state: State | None = None
    unit: bool = False


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint file, or a Hugging Face folder with ``config.json``.

    Raises:
        FewshotError: if it is missing, damaged, or no Segment Anything model.
    """
    if not path.exists():
        raise FewshotError(
            f"SAM file {path} does not exist; give the path of a checkpoint or a registered name."
        )
    told = huggingface.Told()
    metadata: dict[str, str] = {}
    if path.is_dir():
        state, told = huggingface.read_folder(path)
    else:
        state, metadata = read_tensors(path, "SAM file")
    if small.HEADER_KEY in metadata:
        return Checkpoint("sam", _own(state, metadata[small.HEADER_KEY], path))
    if BACKBONE_KEY in metadata:
        raise FewshotError(f"SAM file {path} holds a backbone of fewshot; {OFFER}.")
    state = without_prefix(state)
    if is_sam2(state):
        return Checkpoint("sam2", state=state)
    if huggingface.is_huggingface(state):
        state = huggingface.to_original(state)
    if tiny_vit.MARK in state:
        state = tiny_vit.to_timm(state)
    _refuse_others(state, path)
    state = {name: value for name, value in state.items() if name not in NORMALISATION}
    try:
        told_by_shapes = architecture.tell(state, told.heads or architecture.DECODER_HEADS)
        model = _built(told_by_shapes)
        architecture.fill(model, state)
    except MisfitError as error:
        raise FewshotError(f"SAM file {path} does not fit Segment Anything: {error}; {OFFER}.") from error
    return Checkpoint("sam", model, unit=told.unit)


def without_prefix(state: State) -> State:
    """Names from ``image_encoder`` on; training programs put ``module.``, ``sam.`` and the like before them."""
    prefixes = {match[1] for name in state if (match := ENCODER.match(name))}
    prefix = min(prefixes, key=len, default="")
    return {name.removeprefix(prefix): value for name, value in state.items()}


def is_sam2(state: State) -> bool:
    """Whether these are parameters of SAM 2, whose encoder has a trunk and which has a memory."""
    return any(name.startswith(("image_encoder.trunk.", "memory_encoder.")) for name in state)


def _built(wanted: architecture.Architecture) -> Any:
    try:
        return architecture.build(wanted)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise MisfitError(f"its shapes tell an architecture that cannot be built ({reason})") from error


def _own(state: State, header: str, path: Path) -> Any:
    try:
        model = small.build(json.loads(header))
        architecture.fill(model, state)
    except MisfitError as error:
        raise FewshotError(
            f"SAM file {path} does not fit the architecture in its header: {error}; make or download it again."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise FewshotError(
            f"The header of SAM file {path} tells no architecture that can be built ({reason}); make or download it "
            "again with this version of fewshot."
        ) from error
    return model


def _refuse_others(state: State, path: Path) -> None:
    parts = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    lacking = [part.rstrip(".") for part in parts if not any(name.startswith(part) for name in state)]
    if not lacking:
        return
    others = [name for name in state if not name.startswith(parts)]
    for pattern, kind in OTHER_KINDS:
        if any(re.match(pattern, name) for name in others):
            raise FewshotError(f"SAM file {path} holds {kind}; {OFFER}.")
    raise FewshotError(
        f"SAM file {path} lacks {' and '.join(lacking)} and holds {', '.join(sorted(state)[:2])}; {OFFER}."
    )
