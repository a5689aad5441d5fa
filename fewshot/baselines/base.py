"""What every baseline does: learn from whole template volumes, find the labels in another volume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from fewshot.prediction import Prediction
from fewshot.progress import Progress, silent
from fewshot.settings import checked_options
from fewshot.support import Template
from fewshot.volumes import Volume


class Baseline(ABC):
    """Something that a user would pick instead of an adapter.

    Args:
        options: its settings, one of its ``Options``.
        device: ``auto``, ``cpu`` or ``cuda[:n]``, for those that compute with torch.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str]
    """The publication that it follows."""
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any, *, device: str = "auto") -> None:
        self.options = options
        self.device = device

    @classmethod
    def create(cls, options: Mapping[str, Any] | None = None, *, device: str = "auto") -> Self:
        """A baseline that is not fitted yet.

        Raises:
            FewshotError: for an option that it does not have, a value that does not fit, or a missing weights file.
        """
        return cls(checked_options(f"baseline {cls.name}", cls.Options, dict(options or {})), device=device)

    def provenance(self) -> dict[str, Any]:
        """What its numbers depend on besides templates, options and seed: digest of weights and the like."""
        return {}

    @property
    def note(self) -> str | None:
        """What a reader of its numbers must know, such as that its weights are random."""
        return None

    @abstractmethod
    def fit(
        self,
        templates: Sequence[Template],
        labels: Mapping[str, int],
        *,
        seed: int = 0,
        progress: Progress = silent,
    ) -> dict[str, float]:
        """Learn from the templates, or keep them.

        Args:
            templates: labelled volumes; slices without any label are unknown unless a template is complete.
            labels: name -> value in predictions.

        Returns:
            Scores, such as the number of training steps; empty where nothing is trained.
        """

    @abstractmethod
    def predict(self, volume: Volume, *, progress: Progress = silent) -> Prediction:
        """Find the labels in a volume, with ``probabilities``."""
