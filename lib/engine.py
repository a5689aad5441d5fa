"""The engine as one server process holds it: backbone and bank, loaded at first use, one computation at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fewshot.progress import Progress, silent

if TYPE_CHECKING:
    from fewshot.features import Backbone, FeatureBank
    from fewshot.model import Model
    from fewshot.prediction import Prediction
    from fewshot.support import Template
    from fewshot.volumes import SliceSpec, Volume


class Engine:
    """Fits and predicts with one backbone and one feature bank.

    Nothing heavy is imported or loaded before it is needed, so that an idle server stays small. Requests
    compute one after the other: two at once on the same cores would both be slower and need twice the memory.
    Warming gives way to them, unless it computes the very features that they wait for.

    Args:
        backbone: registered name or checkpoint.
        bank: folder of the feature bank; the engine's default if None.
        gigabytes: size limit of the bank; the engine's default if None.
        slicing: settings of `SliceSpec` that differ from its defaults.
    """

    def __init__(
        self,
        backbone: str,
        *,
        bank: Path | None = None,
        gigabytes: float | None = None,
        slicing: dict[str, Any] | None = None,
    ) -> None:
        self.name = backbone
        self._bank_folder = bank
        self._gigabytes = gigabytes
        self._slicing = dict(slicing or {})
        self._backbones: dict[str, Backbone] = {}
        self._loading = threading.Lock()
        self._computing = threading.Lock()
        self._counting = threading.Lock()
        self._wanted: Counter[str] = Counter()

    def backbone(self, device: str = "auto") -> Backbone:
        """The backbone on a device, loaded once.

        Raises:
            FewshotError: if it cannot be loaded there.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        with self._loading:
            if device not in self._backbones:
                from fewshot.features import load_backbone

                self._backbones[device] = load_backbone(self.name, device=device)
            return self._backbones[device]

    @cached_property
    def bank(self) -> FeatureBank:
        """The feature bank."""
        from fewshot.features import FeatureBank, default_bank_folder

        folder = self._bank_folder or default_bank_folder()
        return FeatureBank(folder, gigabytes=self._gigabytes) if self._gigabytes else FeatureBank(folder)

    @cached_property
    def spec(self) -> SliceSpec:
        """How volumes are cut, as far as the configuration says."""
        from fewshot.volumes import SliceSpec

        return SliceSpec(**self._slicing)

    def fit(
        self,
        templates: Sequence[Template],
        *,
        adapter: str,
        labels: dict[str, int],
        options: dict[str, Any] | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Model:
        """Fit an adapter on templates, see `fewshot.pipeline.fit`."""
        from fewshot import pipeline

        with self._turn(template.volume for template in templates):
            return pipeline.fit(
                templates,
                labels=labels,
                adapter=adapter,
                options=options,
                backbone=self.backbone(device),
                bank=self.bank,
                spec=self.spec,
                progress=progress,
            )

    def predict(self, volume: Volume, model: Model, *, components: str, device: str = "auto") -> Prediction:
        """Find a model's labels in a volume, see `fewshot.pipeline.predict`."""
        from fewshot import pipeline

        with self._turn([volume]):
            return pipeline.predict(
                volume, model, backbone=self.backbone(device), bank=self.bank, components=components
            )

    def warm(self, volume: Volume, templates: Sequence[Volume], *, device: str = "auto") -> None:
        """Fill the bank for a volume, cut as a model fitted on `templates` will want it."""
        from fewshot import pipeline

        backbone = self.backbone(device)
        spec = pipeline.resolve(self.spec, templates, backbone)

        def give_way(*_: object, **__: object) -> None:
            while self._wanted and not self._wanted[volume.digest]:
                time.sleep(0.05)

        pipeline.warm(volume, spec, backbone=backbone, bank=self.bank, progress=give_way)

    @contextmanager
    def _turn(self, volumes: Iterable[Volume]) -> Iterator[None]:
        wanted = Counter(volume.digest for volume in volumes)
        with self._counting:
            self._wanted = self._wanted + wanted
        try:
            with self._computing:
                yield
        finally:
            with self._counting:
                self._wanted = self._wanted - wanted
