"""PerSAM as a baseline: one template slice per label says what to look for in every slice of a volume."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from fewshot import __version__
from fewshot.baselines.base import Baseline
from fewshot.baselines.common import checked_labels, nothing_to_see
from fewshot.baselines.persam.cascade import Cascade
from fewshot.baselines.persam.learning import Learned, frame_of, images_of, learn_labels
from fewshot.errors import FewshotError
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.refine.memory import Batches
from fewshot.refine.sam.model import Embedding, SamModel
from fewshot.settings import number
from fewshot.support import Template
from fewshot.volumes import SliceSpec, SliceStack, Volume, resolve_spec

BATCH = {"cpu": 1, "cuda": 8}
"""Slices encoded at once."""

NOT_THERE = -20.0
"""Logit of a label in a slice that does not show it: probability 0 in float16."""


class PerSAM(Baseline):
    """Personalise Segment Anything with one shot (Zhang et al. 2023, arXiv:2305.03048), slice by slice.

    Labels are put together by a softmax over their logits and 0 for the background, which for one label is SAM's own
    sigmoid.
    """

    name: ClassVar[str] = "persam"
    description: ClassVar[str] = "Segment Anything, prompted by similarity to the template"
    source: ClassVar[str] = "Zhang et al. 2023, Personalize Segment Anything Model with One Shot"

    @dataclass(frozen=True)
    class Options:
        """Settings.

        Attributes:
            sam: a registered SAM model or a checkpoint file; ``auto`` takes one whose weights are on this machine.
            template_slices: slices from which a label is learned; 1 as published.
            reject: leave a label out of slices where nothing looks enough like it; False as published.
            quantile: with ``reject``, the share of the template's own patches of the label that may look less like it
                than the most similar place of a slice must.
            decodings: 1 the guided one only, 2 once more with its mask, 3 once more with the mask's box, as published.
            fine_tuned: PerSAM-F, which learns on the template how much each of SAM's three masks counts.
        """

        sam: str = "auto"
        template_slices: int = 1
        reject: bool = True
        quantile: float = number(0.1, above=-1e-9, below=1)
        decodings: int = 3
        fine_tuned: bool = False

    def __init__(self, options: Any, *, device: str = "auto") -> None:
        super().__init__(options, device=device)
        self._sam = _model(options.sam, device)
        self._spec: SliceSpec | None = None
        self._labels: dict[str, int] = {}
        self._learned: list[Learned] = []

    def provenance(self) -> dict[str, Any]:
        return {"sam": self._sam.name, "weights": self._sam.digest}

    @property
    def note(self) -> str | None:
        return self._sam.note

    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,  # noqa: ARG002 - nothing is drawn
        progress: Progress = silent,
    ) -> dict[str, float]:
        """Encode the template slices; PerSAM-F also learns two numbers for each label.

        Returns:
            For PerSAM-F ``loss``, the mean over the labels.

        Raises:
            FewshotError: without templates, or for a label that no template shows.
        """
        self._labels = checked_labels(templates, labels)
        volumes = [template.volume for template in templates]
        self._spec = replace(resolve_spec(SliceSpec(size=self._sam.size), volumes), pixel_mm=None)
        stacks = [self._stack(volume) for volume in volumes]
        self._learned = learn_labels(
            self._sam,
            templates,
            stacks,
            list(labels),
            count=self.options.template_slices,
            fine_tuned=self.options.fine_tuned,
            progress=progress,
        )
        losses = [of.loss for of in self._learned if of.loss is not None]
        return {"loss": round(float(np.mean(losses)), 4)} if losses else {}

    @torch.inference_mode()
    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Find the labels in a volume; slices of air are background.

        Raises:
            FewshotError: if it was not fitted.
        """
        if self._spec is None:
            raise FewshotError("Baseline persam has no templates yet; fit it first.")
        stack = self._stack(volume)
        frame = frame_of(stack)
        rows = np.flatnonzero(~stack.air).tolist()
        shape = (len(stack), *stack.native)
        classes, certainty = np.zeros(shape, np.uint16), np.ones(shape, np.float16)
        maps = np.zeros((*shape, len(self._labels) + 1), np.float16)
        maps[..., 0] = 1  # air is background
        left_out = dict.fromkeys(self._labels, 0)
        notes: list[str] = []
        cascade = Cascade(self._sam, frame, self.options.decodings)
        batches = Batches(self._sam, BATCH[self._sam.device.type], notes)
        start, prompting, done = time.perf_counter(), 0.0, 0
        for part, embeddings in batches.run(rows, lambda part: self._sam.encode(images_of(stack, part))):
            encoded = time.perf_counter()
            for index, embedding in zip(part, embeddings, strict=True):
                maps[index] = _probabilities(self._logits(embedding, cascade, left_out))
                classes[index], certainty[index] = maps[index].argmax(-1), maps[index].max(-1)
            done += len(part)
            progress("predict", done, len(rows))
            prompting += time.perf_counter() - encoded
        total = time.perf_counter() - start
        return Prediction.from_slices(
            stack,
            classes,
            certainty,
            maps,
            labels=self._labels,
            timings={
                "encoding": round(total - prompting, 4),
                "prompting": round(prompting, 4),
                "total": round(total, 4),
            },
            provenance={
                "fewshot": __version__,
                "baseline": self.name,
                **self.provenance(),
                "template_slices": {
                    name: of.slices for name, of in zip(self._labels, self._learned, strict=True)
                },
                "encoded": len(rows),
                "left_out": left_out,
                "spec": stack.spec.to_dict(),
            },
            notes=[*volume.notes, *notes, *(note for note in (nothing_to_see(stack), self.note) if note)],
        )

    def _logits(self, embedding: Embedding, cascade: Cascade, left_out: dict[str, int]) -> np.ndarray:
        """float32 ``[L, rows, cols]`` of a slice; labels that nothing looks like are counted."""
        wanted = [cascade.look(embedding, of, self._quantile) for of in self._learned]
        for name, of in zip(self._labels, wanted, strict=True):
            left_out[name] += of is None
        there = [label for label, of in enumerate(wanted) if of is not None]
        found = cascade.decode(embedding, [of for of in wanted if of is not None])
        logits = np.full((len(wanted), *found.shape[1:]), NOT_THERE, np.float32)
        logits[there] = found
        return logits

    @property
    def _quantile(self) -> float | None:
        return self.options.quantile if self.options.reject else None

    def _stack(self, volume: Volume) -> SliceStack:
        assert self._spec is not None
        return SliceStack(volume, self._spec, patch=self._sam.patch)


def _model(name: str, device: str) -> SamModel:
    """The SAM model of an option.

    Raises:
        FewshotError: no weights on this machine, or a model that is not SAM's first version.
    """
    from fewshot.refine.sam import SAMS, choose_sam, load_sam

    chosen = choose_sam("sam") if name == "auto" else name
    if chosen is None:
        raise FewshotError(
            "Baseline persam needs weights of Segment Anything, and none are on this machine: give a name (see "
            "`fewshot info`) or a file with --set persam.sam=NAME."
        )
    # a registered name is known before anything is downloaded
    model = None if chosen in SAMS and SAMS[chosen].kind != "sam" else load_sam(chosen, device=device)
    if model is None or model.kind != "sam":
        raise FewshotError(
            f"Baseline persam works inside the mask decoder of SAM's first version, and {chosen} is a SAM 2 model: "
            "give another with --set persam.sam=NAME."
        )
    return model


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits of labels ``[L, rows, cols]`` as probabilities ``[rows, cols, L + 1]``, background first."""
    with_background = np.concatenate([np.zeros_like(logits[:1]), logits])
    return np.moveaxis(torch.from_numpy(with_background).softmax(0).numpy(), 0, -1)
