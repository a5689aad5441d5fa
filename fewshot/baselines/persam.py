"""PerSAM: Segment Anything, pointed to the place that looks most like the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from fewshot.baselines.base import Baseline
from fewshot.errors import FewshotError


class PerSAM(Baseline):
    """Personalise Segment Anything with one shot (Zhang et al. 2023, arXiv:2305.03048)."""

    name: ClassVar[str] = "persam"
    description: ClassVar[str] = "Segment Anything, prompted by similarity to the template"
    source: ClassVar[str] = "Zhang et al. 2023, Personalize Segment Anything Model with One Shot"

    @dataclass(frozen=True)
    class Options:
        """It has no settings."""

    @classmethod
    def create(cls, options: Mapping[str, Any] | None = None, *, device: str = "auto") -> Self:  # noqa: ARG003
        """Refuse: it needs a Segment Anything model.

        Raises:
            FewshotError: always.
        """
        raise FewshotError(
            "Baseline persam needs a Segment Anything model, which this version cannot run; choose another baseline."
        )
