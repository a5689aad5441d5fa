"""What every adapter does: fit on the support set's pixels, predict whole slices from patch features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fewshot.adapters.pixels import to_pixels
from fewshot.adapters.samples import Samples
from fewshot.errors import FewshotError
from fewshot.progress import Progress, silent
from fewshot.settings import checked_options

BAND = 16_384
"""Pixels at once: a band of rows whose hidden units stay in the processor's cache."""


class Adapter(nn.Module, ABC):
    """A tiny model on frozen pixel features.

    Everything that prediction needs is in ``state_dict()`` (template features included) and ``options``.

    Args:
        dim: channels of the features.
        labels: number of labels L; class 0 is background.
        options: the adapter's settings, one of its ``Options``.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    trained: ClassVar[bool]
    Options: ClassVar[type[Any]]

    def __init__(self, dim: int, labels: int, options: Any) -> None:
        super().__init__()
        self.dim = dim
        self.labels = labels
        self.options = options

    @classmethod
    def create(cls, dim: int, labels: int, options: dict[str, Any] | None = None) -> Self:
        """An adapter that is not fitted yet.

        Raises:
            FewshotError: for an option that this adapter does not have, or a value that does not fit.
        """
        return cls(dim, labels, checked_options(f"adapter {cls.name}", cls.Options, options or {}))

    @abstractmethod
    def fit(self, samples: Samples, *, seed: int = 0, progress: Progress = silent) -> dict[str, float]:
        """Learn from pixels of the templates; the same seed gives the same adapter.

        Returns:
            Scores on held-out pixels, empty where nothing is trained.
        """

    @abstractmethod
    def on_patches(self, features: Tensor) -> Tensor:
        """The part that commutes with interpolation: ``[B, h, w, D]`` -> ``[B, h, w, K]``."""

    @abstractmethod
    def on_pixels(self, maps: Tensor) -> Tensor:
        """The rest: interpolated maps ``[B, H, W, K]`` -> probabilities ``[B, H, W, L + 1]``."""

    @torch.inference_mode()
    def predict(self, features: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
        """Class probabilities of every pixel.

        Args:
            features: float32 ``[B, h, w, D]`` patch features.
            ys: ``[H]`` pixel rows in units of patch indices.
            xs: ``[W]`` pixel columns in units of patch indices.

        Returns:
            float32 ``[B, H, W, L + 1]``, summing to one over the last axis.
        """
        maps = self.on_patches(features)
        rows = max(1, BAND // (len(features) * len(xs)))
        return torch.cat([self.on_pixels(to_pixels(maps, band, xs)) for band in ys.split(rows)], dim=1)

    def config(self) -> dict[str, Any]:
        """What ``from_config`` needs besides the tensors of ``state_dict()``; plain JSON."""
        return {"dim": self.dim, "labels": self.labels, "options": asdict(self.options)}

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The adapter that ``config()`` and ``state_dict()`` describe.

        Raises:
            FewshotError: if the tensors do not fit the configuration.
        """
        adapter = cls.create(config["dim"], config["labels"], config["options"])
        for name, value in state.items():
            module_name, _, buffer = name.rpartition(".")
            if buffer in dict(adapter.get_submodule(module_name).named_buffers(recurse=False)):
                setattr(
                    adapter.get_submodule(module_name), buffer, torch.empty_like(value)
                )  # sizes vary with the data
        try:
            adapter.load_state_dict(state)
        except RuntimeError as error:
            raise FewshotError(f"The tensors do not make a {cls.name} adapter: {error}") from error
        return adapter.eval()


class PixelNetwork(nn.Module):
    """A feed-forward network on pixel features whose first layer can run on patches.

    Features are standardised by the support set's mean and deviation inside the first layer's input; that is
    linear too, so it does not disturb the commuting.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, widths: tuple[int, ...], *, final_activation: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.first = nn.Linear(dim, widths[0])
        rest: list[nn.Module] = []
        for before, after in pairwise(widths):
            rest += [nn.ReLU(inplace=True), nn.Linear(before, after)]
        if final_activation:
            rest.append(nn.ReLU(inplace=True))
        self.rest = nn.Sequential(*rest)

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation from the support set's pixel features ``[N, D]``."""
        self.mean = features.mean(0)
        self.scale = 1 / features.std(0).clamp(min=1e-6)

    def narrow(self, features: Tensor) -> Tensor:
        """The first layer: ``[..., D]`` -> ``[..., widths[0]]``, at patch or pixel resolution alike."""
        weight = self.first.weight * self.scale
        return nn.functional.linear(features, weight, self.first.bias - weight @ self.mean)

    def forward(self, features: Tensor) -> Tensor:
        return self.rest(self.narrow(features))
