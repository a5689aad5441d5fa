"""What a training of the backbone can be told, checked before a process is started for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.trainers.base import option, whole_number
from lib.workspace import AUTO

if TYPE_CHECKING:
    from fewshot.pretraining import PretrainSettings

CURRENT, SCRATCH = "current", "scratch"
"""Starts: the backbone in use, or the embedded architecture with random weights."""

LONGEST = 7 * 24 * 60.0

SAVE_SECONDS = 60.0
"""Between two checkpoints: a viewer's *Stop* kills the process, and so much has to be computed again."""


@dataclass(frozen=True)
class Plan:
    """How a backbone is to be trained.

    Attributes:
        minutes: how long.
        images: on how many at most, 0 for no limit.
        start: `CURRENT`, `SCRATCH`, or a backbone's name or file.
        settings: of the engine's recipe, where they differ from its defaults.
    """

    minutes: float = 30.0
    images: int = 0
    start: str = CURRENT
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, request: dict[str, Any], defaults: Plan) -> Plan:
        """The plan that a viewer asks for.

        Raises:
            HTTPException: if an option cannot be used, or what the training needs is not installed.
        """
        plan = cls(
            minutes=_minutes(request, defaults.minutes),
            images=whole_number(request, "images", defaults.images, least=0),
            start=_start(str(option(request, "start", defaults.start))),
            settings=option(request, "settings", defaults.settings),
        )
        plan.recipe()
        return plan

    def recipe(self) -> PretrainSettings:
        """The engine's settings.

        Raises:
            HTTPException: if one of them does not fit.
        """
        try:
            from fewshot.pretraining import PretrainSettings
        except ModuleNotFoundError as error:
            raise HTTPException(
                409,
                f"Training a backbone needs {error.name}, which is not installed: install fewshot[pretrain].",
            ) from error
        if not isinstance(self.settings, dict):
            raise HTTPException(422, f"settings is {self.settings!r}: give an object of names and values.")
        told = {"save_seconds": SAVE_SECONDS, **self.settings}
        try:
            return PretrainSettings.create({**told, "minutes": self.minutes, "images": self.images})
        except FewshotError as error:
            raise HTTPException(422, str(error)) from error

    def differences(self, other: Plan) -> list[str]:
        """Names of the options that differ."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if mine[name] != theirs[name]]


def _minutes(request: dict[str, Any], default: float) -> float:
    asked = option(request, "minutes", default)
    try:
        minutes = float(asked)
    except (TypeError, ValueError):
        minutes = 0.0
    if not 0 < minutes <= LONGEST:
        raise HTTPException(422, f"minutes is {asked!r}: give a number above 0, at most {LONGEST:.0f}.")
    return minutes


def _start(asked: str) -> str:
    from fewshot.features import check_name

    if asked in (CURRENT, SCRATCH):
        return asked
    try:
        if asked == AUTO:
            raise FewshotError("auto is no start.")
        return check_name(asked)
    except FewshotError as error:
        raise HTTPException(
            422, f"start is {asked}: give {CURRENT}, {SCRATCH}, or a backbone. {error}"
        ) from error
