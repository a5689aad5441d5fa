"""What SAM 2 remembers of one object in one volume, and how it finds it in the next slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewshot.refine.prompt import Prompt
from fewshot.refine.sam.model import Embedding, Frame
from fewshot.refine.sam2.geometry import to_native, to_square

if TYPE_CHECKING:
    from fewshot.refine.sam2.model import Sam2Model

FEW_REFERENCES = 2
"""Known slices that are looked at where memory is short; the nearest on either side."""

State = dict[str, Any]
"""What the network remembers of a slice."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A slice of another volume with its mask.

    Attributes:
        embedding: of the slice.
        frame: how it lies in the model's image.
        mask: bool ``[rows, cols]`` on its own native pixels.
    """

    embedding: Embedding
    frame: Frame
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Tracked:
    """What was found in a slice.

    Attributes:
        index: of the slice.
        logits: float32 ``[rows, cols]``, above 0 inside.
        quality: the IoU that the model itself expects; 1 for masks that it was given.
        presence: logit that the object is in this slice at all.
    """

    index: int
    logits: np.ndarray
    quality: float
    presence: float


class Tracker:
    """The memory of one object in one volume.

    Args:
        sam: the model.
        embeddings: gives the embedding of a slice.
        extent: slices that may be visited.
        frame: how they lie in the model's image.
        notes: is told when less memory had to do.
    """

    def __init__(
        self,
        sam: Sam2Model,
        embeddings: Callable[[int], Embedding],
        extent: range,
        frame: Frame,
        notes: list[str],
    ) -> None:
        self._sam, self._embeddings, self._extent, self._frame = sam, embeddings, extent, frame
        self._notes = notes
        self._references: list[State] = []
        self._known: dict[int, State] = {}
        self._followed: dict[int, State] = {}
        self._short = False

    def refer(self, reference: Reference) -> None:
        """Keep a slice of another volume in mind."""
        state, _, _ = self._guarded(
            lambda: self._known_slice(reference.embedding, reference.mask, reference.frame)
        )
        self._references.append(state)

    def condition(self, index: int, told: np.ndarray | Prompt) -> Tracked:
        """Keep a slice of this volume in mind."""
        embedding = self._embeddings(index)
        state, masks, quality = self._guarded(lambda: self._known_slice(embedding, told, self._frame))
        self._known[index] = state
        return self._tracked(index, state, masks, quality)

    def follow(self, index: int, *, backward: bool = False) -> Tracked:
        """Find the object in a slice next to those seen before."""
        embedding = self._embeddings(index)
        state, masks, quality = self._guarded(lambda: self._next_slice(index, embedding, backward))
        self._followed[index] = state
        return self._tracked(index, state, masks, quality)

    @torch.inference_mode()
    def _known_slice(
        self, embedding: Embedding, told: np.ndarray | Prompt, frame: Frame
    ) -> tuple[State, Tensor, float]:
        """Memory, logits and quality of a slice where the object is known by a mask or a prompt."""
        sam = self._sam
        points = mask = None
        if isinstance(told, Prompt):
            inputs = sam.point_inputs([told], frame)
            if inputs is None:
                raise ValueError("a prompt that begins a propagation needs a point or a box")
            points = dict(zip(("point_coords", "point_labels"), inputs, strict=True))
        else:
            mask = (to_square(told, frame, sam.size, outside=0.0) >= 0.5).float().to(sam.device)
        features = self._features(embedding)
        with sam.precision():
            found, quality = self._step(
                features,
                time=0,
                first=True,
                points=points,
                mask=mask,
                seen={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
                remember=False,
            )
            # like the package: what is remembered is the mask at the decoder's resolution, made sharp again
            whole = interpolate(found["pred_masks"].float(), size=(sam.size, sam.size), mode="bilinear")
            memory, places = sam.network._encode_new_memory(
                current_vision_feats=features["current_vision_feats"],
                feat_sizes=features["feat_sizes"],
                pred_masks_high_res=whole,
                object_score_logits=found["object_score_logits"],
                is_mask_from_pts=True,
            )
        found |= {"maskmem_features": memory, "maskmem_pos_enc": places}
        return self._kept(found), found["pred_masks"], quality if points else 1.0

    @torch.inference_mode()
    def _next_slice(self, index: int, embedding: Embedding, backward: bool) -> tuple[State, Tensor, float]:
        """Memory, logits and quality of a slice where the object is sought."""
        seen = {
            "cond_frame_outputs": {
                **dict(enumerate(self._references)),
                **{self._time(known, backward): state for known, state in self._known.items()},
            },
            "non_cond_frame_outputs": {
                self._time(other, backward): state for other, state in self._followed.items()
            },
        }
        if self._short:
            nearest = sorted(
                seen["cond_frame_outputs"], key=lambda time: abs(time - self._time(index, backward))
            )
            seen["cond_frame_outputs"] = {
                time: seen["cond_frame_outputs"][time] for time in sorted(nearest[:FEW_REFERENCES])
            }
        with self._sam.precision():
            found, quality = self._step(
                self._features(embedding), time=self._time(index, backward), first=False, seen=seen
            )
        return self._kept(found), found["pred_masks"], quality

    def _time(self, index: int, backward: bool) -> int:
        """When a slice is seen: references first; in the backward direction the volume is turned around."""
        steps = self._extent.stop - 1 - index if backward else index - self._extent.start
        return len(self._references) + steps

    def _features(self, embedding: Embedding) -> dict[str, Any]:
        """An embedding as the network's trackers want it: ``[h w, 1, C]`` per level, with positions."""
        network = self._sam.network
        levels = self._sam.levels(embedding)
        places = [network.image_encoder.neck.position_encoding(level) for level in levels[-1:]]
        return {
            "current_vision_feats": [level.flatten(2).permute(2, 0, 1) for level in levels],
            "current_vision_pos_embeds": [place.flatten(2).permute(2, 0, 1) for place in places],
            "feat_sizes": [tuple(level.shape[-2:]) for level in levels],
        }

    def _step(
        self,
        features: dict[str, Any],
        *,
        time: int,
        first: bool,
        seen: State,
        points: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
        remember: bool = True,
    ) -> tuple[State, float]:
        """One step of the network's tracker; the quality that it keeps to itself is read off its decoder."""
        network = self._sam.network
        qualities: list[Tensor] = []
        hook = network.sam_mask_decoder.register_forward_hook(lambda *call: qualities.append(call[-1][1]))
        try:
            found = network.track_step(
                frame_idx=time,
                is_init_cond_frame=first,
                **features,
                point_inputs=points,
                mask_inputs=mask,
                output_dict=seen,
                num_frames=len(self._references) + len(self._extent),
                run_mem_encoder=remember,
            )
        finally:
            hook.remove()
        return found, float(qualities[-1].max())  # of several candidates the tracker takes the best

    def _kept(self, found: State) -> State:
        """What later slices need: half precision, as in the package, and one copy of what never changes."""
        storage = torch.device("cpu") if self._short else self._sam.device
        before = next(iter([*self._references, *self._known.values()]), None)
        return {
            "maskmem_features": found["maskmem_features"].to(storage, torch.bfloat16),
            "maskmem_pos_enc": (before or found)["maskmem_pos_enc"],
            "obj_ptr": found["obj_ptr"],
            "presence": float(found["object_score_logits"]),
        }

    def _tracked(self, index: int, state: State, masks: Tensor, quality: float) -> Tracked:
        logits = to_native(masks, self._frame, self._sam.size)[0, 0].cpu().numpy()
        return Tracked(index, logits, quality, state["presence"])

    def _guarded(self, compute: Callable[[], tuple[State, Tensor, float]]) -> tuple[State, Tensor, float]:
        """With less memory where a GPU has too little, then on the CPU."""
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                if self._sam.device.type == "cpu" and self._short:
                    raise
            self._spare()  # after the error is gone, which holds the tensors of its frames

    def _spare(self) -> None:
        if not self._short:
            self._short = True
            self._notes.append(
                f"the GPU's memory is short: SAM 2 looked at {FEW_REFERENCES} known slices at a time"
            )
        else:
            self._notes.append("the GPU's memory is too small for SAM 2: it went on on the CPU")
            self._sam.to(torch.device("cpu"))
        kept = torch.device("cpu")
        for state in (*self._references, *self._known.values(), *self._followed.values()):
            state["maskmem_features"] = state["maskmem_features"].to(kept)
            if self._sam.device.type == "cpu":
                state["obj_ptr"] = state["obj_ptr"].to(kept)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
