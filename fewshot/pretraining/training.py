"""Self-supervised training of a backbone on slices: one loop that can be stopped and taken up again anywhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewshot.errors import FewshotError
from fewshot.features.device import choose_dtype
from fewshot.pretraining.batches import SliceSampler, make_views
from fewshot.pretraining.checkpoint import load_checkpoint, save_checkpoint
from fewshot.pretraining.losses import Losses
from fewshot.pretraining.monitor import Monitor
from fewshot.pretraining.network import Network, follow, parameter_groups, teacher_of
from fewshot.pretraining.processes import Processes
from fewshot.pretraining.schedule import momentum, set_optimiser
from fewshot.pretraining.settings import PretrainSettings
from fewshot.pretraining.slices import SliceStore
from fewshot.progress import Progress, silent

CLIP = 1.0
"""Largest norm of a step's gradient."""


class Training:
    """A student, its teacher and the optimiser, with all that a checkpoint must hold.

    Args:
        backbone: a timm VisionTransformer to train, changed in place.
        store: slices of all studies.
        settings: the recipe.
        checkpoint: where the state is kept; taken up from there if it exists.
        processes: this one and its fellows.
        start: names the weights of ``backbone``; a checkpoint of a training from others is refused.
    """

    def __init__(
        self,
        backbone: Any,
        store: SliceStore,
        settings: PretrainSettings,
        *,
        checkpoint: Path,
        processes: Processes,
        start: str = "",
    ) -> None:
        self.settings = settings
        self._origin = {"studies": store.digest, "start weights": start}
        self.processes = processes
        self.checkpoint = checkpoint
        self.patch: int = backbone.patch_embed.patch_size[0]
        torch.manual_seed(settings.seed)
        self.student = Network(backbone, settings).to(processes.device)
        self.teacher = teacher_of(self.student, settings).to(processes.device)
        self.losses = Losses(settings).to(processes.device)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.student, settings.weight_decay), settings.learning_rate
        )
        self.sampler = SliceSampler(store, size=settings.size, neighbours=settings.neighbours)
        self.images = 0
        self.seconds = 0.0
        self.resumed = checkpoint.exists()
        if self.resumed:
            self._restore(load_checkpoint(checkpoint))
        self.parallel: nn.Module = self.student
        if processes.count > 1:
            self.parallel = DistributedDataParallel(self.student, find_unused_parameters=True)
        self._dtype = choose_dtype(processes.device)

    @property
    def share(self) -> float:
        """How much of the training is done, 0 to 1, by images or by the clock."""
        by_images = self.images / self.settings.images if self.settings.images else 0.0
        by_clock = self.seconds / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        return min(1.0, max(by_images, by_clock))

    def run(
        self,
        monitor: Monitor | None,
        *,
        progress: Progress = silent,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end.

        Args:
            monitor: writes curves and pictures; in the first process only.
            progress: told the stage "pretrain", images, images in all and values.
            stop: asked after each step; a checkpoint is written before leaving early.

        Raises:
            FewshotError: if the loss is no longer a number, or a checkpoint cannot be written; the last one stays.
        """
        saved = time.monotonic()
        began = time.monotonic() - self.seconds
        first_images = self.images
        first_seconds = self.seconds
        averages: dict[str, float] = {}
        while self.share < 1.0:
            terms = self.step()
            self.seconds = self.processes.agree(time.monotonic() - began)
            self._check(terms)
            for name, value in terms.items():
                averages[name] = 0.9 * averages.get(name, value) + 0.1 * value
            rate = (self.images - first_images) / max(1e-6, self.seconds - first_seconds)
            left = self.seconds * (1 - self.share) / max(self.share, 1e-9)
            if monitor:
                monitor.step(self, averages, rate)
            done, total = self._counts()
            progress("pretrain", done, total, images_per_second=rate, seconds_left=left, **averages)
            stopping = bool(self.processes.agree(float(stop())))
            if stopping or time.monotonic() - saved > self.settings.save_seconds or self.share >= 1.0:
                self.save()
                saved = time.monotonic()
            if stopping:
                return

    def step(self) -> dict[str, float]:
        """One optimiser step; the values of all terms."""
        settings, processes = self.settings, self.processes
        share = self.share
        set_optimiser(self.optimiser, settings, share)
        part = max(2, settings.batch // (processes.count * settings.accumulate))
        # numbers drawn depend on images seen and process alone, so a resumed training goes on with the same ones
        seed = [settings.seed, self.images, processes.rank]
        numbers = np.random.default_rng(seed)
        generator = torch.Generator(processes.device).manual_seed(int(numbers.integers(2**62)))
        sums: dict[str, float] = {}
        self.optimiser.zero_grad(set_to_none=True)
        for turn in range(settings.accumulate):
            batch, places = make_views(
                self.sampler.draw(part, numbers), settings, patch=self.patch, generator=generator
            )
            with self._unsynchronised(turn + 1 < settings.accumulate), self._precision():
                student = self.parallel(batch)
                terms = self.losses(student, self._teach(batch), batch["mask"], places)
                total = self.losses.total(terms)
            (total / settings.accumulate).backward()
            for name, value in {**terms, "loss": total}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / settings.accumulate
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
            follow(self.teacher, self.student, momentum(settings, share))
        else:
            sums["loss"] = math.nan
        self.images += part * processes.count * settings.accumulate
        return sums

    def save(self) -> None:
        """Write the checkpoint (first process only)."""
        if not self.processes.first:
            return
        state = {
            "settings": self.settings.to_json(),
            "origin": self._origin,
            "images": self.images,
            "seconds": self.seconds,
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "losses": self.losses.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)

    def _restore(self, state: dict[str, Any]) -> None:
        if changed := self._changes(state):
            raise FewshotError(
                f"The training in {self.checkpoint.parent} was begun with other {' and '.join(changed)}; give the same "
                "again to go on, or start anew with --restart."
            )
        try:
            self.student.load_state_dict(state["student"])
            self.teacher.load_state_dict(state["teacher"])
            self.losses.load_state_dict(state["losses"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise FewshotError(
                f"The checkpoint {self.checkpoint} is of another backbone; start again with --restart."
            ) from error
        self.images, self.seconds = state["images"], state["seconds"]

    def _changes(self, state: dict[str, Any]) -> list[str]:
        """What is told otherwise than when the training of a checkpoint began."""
        before, now = json.loads(state["settings"]), asdict(self.settings)
        names = [name for name in now if before.get(name) != now[name]]
        origin = state.get("origin", self._origin)
        return [f"settings ({', '.join(names)})"] * bool(names) + [
            name for name, value in self._origin.items() if origin[name] != value
        ]

    @torch.no_grad()
    def _teach(self, batch: dict[str, Any]) -> dict[str, Tensor] | None:
        if not self.settings.teacher_needed:
            return None
        return self.teacher({**batch, "hidden": False, "keep": None, "local": None, "places": None})

    def _check(self, terms: dict[str, float]) -> None:
        if self.processes.agree(float(not math.isfinite(terms["loss"]))):
            kept = "there is no checkpoint yet"
            if self.checkpoint.exists():
                kept = f"the last good checkpoint is {self.checkpoint}"
            raise FewshotError(
                f"The loss is no longer a number after {self.images} images; {kept}: try --set learning_rate="
                f"{self.settings.learning_rate / 3:.2g} with --restart."
            )

    def _counts(self) -> tuple[int, int]:
        """Images done and in all, the latter estimated where the clock decides."""
        return self.images, max(self.images, round(self.images / max(self.share, 1e-9)))

    @contextmanager
    def _precision(self) -> Iterator[None]:
        enabled = self._dtype == torch.bfloat16
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled):
            yield

    @contextmanager
    def _unsynchronised(self, wanted: bool) -> Iterator[None]:
        if wanted and isinstance(self.parallel, DistributedDataParallel):
            with self.parallel.no_sync():
                yield
        else:
            yield
