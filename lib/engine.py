"""The engine as one server process holds it: backbones and bank, loaded at first use, one computation at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.progress import Progress, silent
from lib.files import stamp
from lib.queueing import InferenceQueue
from lib.refining import UNREFINED, Refinement, Refining, decided
from lib.turns import Turns

if TYPE_CHECKING:
    from fewshot.crossvalidation import CrossValidation
    from fewshot.features import Backbone, FeatureBank
    from fewshot.model import Model
    from fewshot.prediction import Prediction
    from fewshot.refine.clicks import Clicked, Clicks
    from fewshot.support import Template
    from fewshot.volumes import SliceSpec, Volume


KEPT = 2
"""Backbones in memory: adapters fitted before a change of the backbone still need the one before."""

ROOM = 0.9
"""Share of the bank's size limit up to which features are computed that nobody has asked for."""

SLICE_AXIS = 2
"""Both viewers count a volume's slices along the third voxel axis and replace one of those at a click."""


class Engine:
    """Fits and predicts with the backbone in use, and with those that older models were fitted on.

    Nothing heavy is imported or loaded before it is needed, so that an idle server stays small. Requests
    compute one after the other: two at once on the same cores would both be slower and need twice the memory.
    Warming gives way to them, unless it computes the very features that they wait for.

    Attributes:
        queue: where inferences of viewers wait for their turn; `turns` lets one request of all compute.

    Args:
        backbone: tells the backbone in use, a registered name or checkpoint; asked every time, for a training in
            another process may change it.
        find: tells where a backbone that a model names is.
        bank: folder of the feature bank; the engine's default if None.
        gigabytes: size limit of the bank; the engine's default if None.
        slicing: settings of `SliceSpec` that differ from its defaults.
        sam: which Segment Anything model refines and answers clicks; `auto` takes one that is at hand.
    """

    def __init__(
        self,
        backbone: Callable[[], str],
        *,
        find: Callable[[str], str],
        bank: Path | None = None,
        gigabytes: float | None = None,
        slicing: dict[str, Any] | None = None,
        sam: str = "auto",
    ) -> None:
        self._in_use = backbone
        self._find = find
        self._bank_folder = bank
        self._gigabytes = gigabytes
        self._slicing = dict(slicing or {})
        self.refining = Refining(sam)
        self.queue = InferenceQueue()
        self._backbones: OrderedDict[tuple[object, ...], Backbone] = OrderedDict()
        self._loading = threading.Lock()
        self.turns = Turns()

    @property
    def name(self) -> str:
        """The backbone in use."""
        return self._in_use()

    def backbone(self, device: str = "auto", name: str | None = None) -> Backbone:
        """A backbone on a device, by default the one in use; the last two stay loaded.

        Raises:
            FewshotError: if it cannot be loaded there.
        """
        name = name or self.name
        device = decided(device)
        key = (name, device, *stamp(Path(name)))
        with self._loading:
            if key not in self._backbones:
                from fewshot.features import load_backbone

                while len(self._backbones) >= KEPT:
                    self._backbones.popitem(last=False)
                self._backbones[key] = load_backbone(name, device=device)
            self._backbones.move_to_end(key)
            return self._backbones[key]

    def backbone_of(self, model: Model, device: str = "auto") -> Backbone:
        """The backbone that a model was fitted on; the one in use if that is not known here.

        Raises:
            FewshotError: if it cannot be loaded.
        """
        from fewshot.features import BACKBONES

        name = self._find(model.backbone)
        return self.backbone(device, name if name in BACKBONES or Path(name).exists() else None)

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
        backbone: str | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Model:
        """Fit an adapter on templates, see `fewshot.pipeline.fit`; by default with the backbone in use."""
        from fewshot import pipeline

        with self.turns.take(template.volume for template in templates):
            return pipeline.fit(
                templates,
                labels=labels,
                adapter=adapter,
                options=options,
                backbone=self.backbone(device, backbone),
                bank=self.bank,
                spec=self.spec,
                progress=progress,
            )

    def cross_validate(
        self,
        templates: Sequence[Template],
        *,
        adapter: str,
        labels: Sequence[str],
        options: dict[str, Any] | None = None,
        backbone: str | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: Progress = silent,
    ) -> CrossValidation:
        """Find each template by the others, see `fewshot.crossvalidation`; by default with the backbone in use."""
        from fewshot import crossvalidation

        with self.turns.take(template.volume for template in templates):
            return crossvalidation.cross_validate(
                templates,
                backbone=self.backbone(device, backbone),
                bank=self.bank,
                labels=labels,
                adapter=adapter,
                options=options,
                spec=self.spec,
                seed=seed,
                progress=progress,
            )

    def predict(
        self,
        volume: Volume,
        model: Model,
        *,
        components: str,
        refine: Refinement = UNREFINED,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Prediction:
        """Find a model's labels in a volume and refine them, see `fewshot.pipeline.predict`."""
        from fewshot import pipeline

        with self.turns.take([volume], progress):
            refiner = self.refining.refiner(refine, bank=self.bank, device=device)
            return pipeline.predict(
                volume,
                model,
                backbone=self.backbone_of(model, device),
                bank=self.bank,
                components=components,
                refiner=refiner,
                progress=progress,
            )

    def segment_clicks(
        self,
        volume: Volume,
        clicks: Clicks,
        spec: SliceSpec,
        *,
        whole: bool,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Clicked:
        """Find the structure that was clicked, see `fewshot.refine.clicks.segment_clicks`."""
        from fewshot.refine.clicks import segment_clicks

        with self.turns.take([volume], progress):
            return segment_clicks(
                volume,
                clicks,
                whole=whole,
                slice_axis=SLICE_AXIS,
                backbone=self.backbone(device),
                bank=self.bank,
                sam=self.refining.sam_for_clicks(device),
                spec=spec,
                progress=progress,
            )

    def warm_clicks(
        self, volume: Volume, spec: SliceSpec, slices: Sequence[int], *, device: str = "auto"
    ) -> int:
        """Compute what clicks on some slices will need, one slice after the other; requests go between.

        Returns:
            Number of slices that were computed.
        """
        from fewshot.refine.clicks import warm_clicks

        computed = 0
        for index in slices:
            with self.turns.spare():
                computed += warm_clicks(
                    volume,
                    [index],
                    slice_axis=SLICE_AXIS,
                    backbone=self.backbone(device),
                    bank=self.bank,
                    sam=self.refining.sam_for_clicks(device),
                    spec=spec,
                )
        return computed

    def slicing(self, templates: Sequence[Volume], *, backbone: str | None = None) -> SliceSpec:
        """How a model fitted on `templates` wants volumes to be cut."""
        from fewshot import pipeline

        return pipeline.resolve(self.spec, templates, self.backbone(name=backbone))

    def warm(
        self,
        volume: Volume,
        spec: SliceSpec,
        *,
        backbone: str | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> None:
        """Fill the bank for a volume, cut as `slicing` says."""
        from fewshot.volumes import SliceStack

        chosen = self.backbone(device, backbone)

        def give_way(*step: Any, **values: float) -> None:
            self.turns.give_way(volume)
            progress(*step, **values)

        self.bank.features(SliceStack(volume, spec, patch=chosen.patch), chosen, progress=give_way)

    def forget(self, volume: Volume, spec: SliceSpec, *, backbone: str) -> bool:
        """Drop a volume's features of another backbone from the bank; False if there are none."""
        from fewshot.features.bank import entry_signature
        from fewshot.volumes import SliceStack

        other = self.backbone(name=backbone)
        entry = self.bank.path(entry_signature(SliceStack(volume, spec, patch=other.patch), other))
        found = entry.exists()
        with suppress(OSError):  # not ours to remove, or in use: it will be the least recently used one
            entry.unlink()
        return found

    def has_room(self) -> bool:
        """Whether the bank can take features without dropping others."""
        sizes = (stamp(entry)[2] for entry in self.bank.folder.glob("*.safetensors"))
        return sum(sizes) < ROOM * self.bank.limit
