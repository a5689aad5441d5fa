"""UniverSeg as a baseline: templates become support sets, every slice of a volume a target."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot import __version__
from fewshot.baselines.base import Baseline
from fewshot.baselines.common import checked_labels, nothing_to_see
from fewshot.baselines.universeg.network import UniverSegNetwork, initialise
from fewshot.baselines.universeg.support import (
    SupportSet,
    centred,
    collect_support,
    square_spec,
    square_stack,
)
from fewshot.baselines.universeg.weights import find_weights, load_network, no_weights
from fewshot.errors import FewshotError
from fewshot.features.backbone import weights_digest
from fewshot.features.device import choose_device
from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import number
from fewshot.support import Template
from fewshot.volumes import SliceSpec, SliceStack, Volume
from fewshot.volumes.resizing import resize

PAIRS_AT_ONCE = {"cpu": 64, "cuda": 512}
"""Pairs of a target and a support image whose features exist at once; about 5 MiB each."""

RANDOM_NOTE = "random weights: only its speed means something"
RANDOM_SEED = 0


class UniverSeg(Baseline):
    """In-context segmentation (Butoi et al. 2023): slices of 128 x 128 pixels, one label at a time, nothing trained.

    Labels are put together by a softmax over their logits and 0 for the background, which for one label is the
    published model's sigmoid.
    """

    name: ClassVar[str] = "universeg"
    description: ClassVar[str] = "UniverSeg: the templates' slices as context of a published network"
    source: ClassVar[str] = "Butoi et al. 2023, UniverSeg: Universal Medical Image Segmentation (ICCV)"

    @dataclass(frozen=True)
    class Options:
        """Settings.

        Attributes:
            weights: path of the published file; by default what FEWSHOT_UNIVERSEG names.
            random: run with random weights where no file is named, to measure speed.
            support: slices in the support set of a label, at most.
            without: share of them that do not show the label, as far as such slices are known.
        """

        weights: str = ""
        random: bool = False
        support: int = 64
        without: float = number(0.25, above=-1e-9, below=1)

    def __init__(self, options: Any, *, device: str = "auto") -> None:
        super().__init__(options, device=device)
        self._device = choose_device(device)
        path = find_weights(options.weights)
        if path is None and not options.random:
            raise no_weights()
        self._random = path is None
        if path is None:
            self._network = UniverSegNetwork()
            initialise(self._network, RANDOM_SEED)
        else:
            self._network = load_network(path)
        self._network.to(self._device)
        self._spec: SliceSpec | None = None
        self._labels: dict[str, int] = {}
        self._support: list[SupportSet] = []
        self._templates: list[str] = []

    def provenance(self) -> dict[str, Any]:
        return {"weights": "random" if self._random else weights_digest(self._network)}

    @property
    def note(self) -> str | None:
        return RANDOM_NOTE if self._random else None

    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> dict[str, float]:
        """Draw the support set of every label; nothing is trained.

        Raises:
            FewshotError: without templates, or if a label was never drawn.
        """
        self._labels = checked_labels(templates, labels)
        self._spec = square_spec([template.volume for template in templates])
        self._templates = [template.volume.name for template in templates]
        self._support = []
        for done, name in enumerate(labels, start=1):
            self._support.append(
                collect_support(
                    templates,
                    name,
                    self._spec,
                    limit=self.options.support,
                    without=self.options.without,
                    seed=seed,
                )
            )
            progress("train", done, len(labels))
        return {}

    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Find the labels in a volume; slices of air are background.

        Raises:
            FewshotError: if it was not fitted.
        """
        if self._spec is None:
            raise FewshotError("Baseline universeg has no templates yet; fit it first.")
        start = time.perf_counter()
        stack = square_stack(volume, self._spec)
        rows = np.flatnonzero(~stack.air)
        images = centred(stack.render(rows.tolist()), stack)
        cut = time.perf_counter()
        logits = self._logits(images, progress)
        computed = time.perf_counter()
        classes, certainty, maps = self._to_native(stack, rows, centred_back(logits, stack))
        timings = {
            "slices": round(cut - start, 4),
            "network": round(computed - cut, 4),
            "resizing": round(time.perf_counter() - computed, 4),
        }
        return Prediction.from_slices(
            stack,
            classes,
            certainty,
            maps,
            labels=self._labels,
            timings={**timings, "total": round(sum(timings.values()), 4)},
            provenance={
                "fewshot": __version__,
                "baseline": self.name,
                **self.provenance(),
                "templates": self._templates,
                "spec": stack.spec.to_dict(),
            },
            notes=[*volume.notes, *(note for note in (nothing_to_see(stack), self.note) if note)],
        )

    @torch.inference_mode()
    def _logits(self, images: np.ndarray, progress: Progress) -> np.ndarray:
        """float32 ``[L, R, 128, 128]`` for images ``[R, 128, 128]``, label by label."""
        logits = np.zeros((len(self._support), *images.shape), np.float32)
        total, done = logits.shape[0] * len(images), 0
        for label, support in enumerate(self._support):
            prepared = self._network.prepare(self._tensor(support.images), self._tensor(support.masks))
            at_once = max(1, PAIRS_AT_ONCE[self._device.type] // len(support.images))
            for first in range(0, len(images), at_once):
                part = slice(first, first + at_once)
                found = self._network.segment(self._tensor(images[part]), prepared)
                logits[label, part] = found[:, 0].cpu().numpy()
                done += len(found)
                progress("predict", done, total)
        return logits

    def _tensor(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(self._device)

    def _to_native(
        self, stack: SliceStack, rows: np.ndarray, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class, its probability, and all probabilities ``[S, rows, cols, L + 1]`` on the volume's in-plane grid."""
        shape = (len(stack), *stack.native)
        classes, certainty = np.zeros(shape, np.uint16), np.ones(shape, np.float16)
        maps = np.zeros((*shape, len(self._labels) + 1), np.float16)
        maps[..., 0] = 1  # air is background
        for index, of_slice in zip(rows, logits.swapaxes(0, 1), strict=True):
            probabilities = probabilities_of(torch.from_numpy(of_slice)).numpy()
            native = resize(probabilities[:, : stack.content[0], : stack.content[1]], stack.native)
            maps[index] = native.transpose(1, 2, 0)
            classes[index], certainty[index] = maps[index].argmax(-1), maps[index].max(-1)
        return classes, certainty, maps


def probabilities_of(logits: Tensor) -> Tensor:
    """Logits of labels ``[L, ...]`` as probabilities ``[L + 1, ...]`` with the background first."""
    return torch.cat([torch.zeros_like(logits[:1]), logits]).softmax(0)


def centred_back(logits: np.ndarray, stack: SliceStack) -> np.ndarray:
    """Logits ``[L, R, 128, 128]`` of centred slices at the places that the stack has them."""
    return np.stack([centred(of_label, stack, back=True) for of_label in logits])
