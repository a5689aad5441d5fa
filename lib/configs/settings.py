"""What `--conf KEY VALUE` may say: one registry from which checks, messages and defaults derive."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError

COMPONENTS = ("auto", "largest", "all")
"""How many connected parts of a label are kept; the engine's own choices, repeated to import it later."""

REFINERS = ("auto", "none", "walker", "sam", "sam2")
"""What makes labels follow edges; the engine's own choices, repeated as well."""

PROMPTS = ("random", "kmeans", "centroid", "box", "box+random", "background", "mask", "certain")
"""How a Segment Anything model is told where a label is; the engine's own choices, repeated as well."""

SERVER_KEYS = frozenset({"server_mode", "auth_token"})
"""Keys that MONAI Label itself reads from --conf."""


@dataclass(frozen=True)
class AppSettings:
    """The app's configuration, checked. The field names are the keys of --conf.

    Attributes:
        landmarks: labels that are landmarks, None for all of them.
    """

    models: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    landmarks: tuple[str, ...] | None = ()
    backbone: str | None = None
    plane: str = "auto"
    window: str = "auto"
    size: int | None = None
    bank: Path | None = None
    bank_gb: float | None = None
    workspace: str | None = None
    complete: bool | None = None
    components: str = "auto"
    refine: str = REFINERS[0]
    sam: str = "auto"
    max_epochs: int | None = None
    train_all: tuple[str, ...] | None = None
    modalities: tuple[str, ...] = ()
    poll: float | None = None

    @classmethod
    def parse(cls, conf: Mapping[str, Any], *, models: tuple[str, ...]) -> AppSettings:
        """Check what was given with --conf.

        Args:
            conf: keys and values as given, all texts.
            models: the models that exist.

        Raises:
            FewshotError: for an unknown key or a value that does not fit, naming what would.
        """
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(conf) - set(known) - SERVER_KEYS):
            raise FewshotError(
                f"--conf {', '.join(unknown)}: there is no such key; the app knows {', '.join(known)}."
            )
        values: dict[str, Any] = {}
        for key in known:
            if key in conf:
                try:
                    values[key] = PARSERS[key](str(conf[key]).strip())
                except FewshotError as error:
                    raise FewshotError(f"--conf {key} {conf[key]}: {error}") from None
        for key in ("models", "train_all"):
            if unknown := [name for name in values.get(key) or () if name not in models]:
                raise FewshotError(
                    f"--conf {key}: there is no model {', '.join(unknown)}; choose from {', '.join(models)}."
                )
        return cls(**values)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise FewshotError("give names separated by commas, none of them empty.")
    if len(set(names)) < len(names):
        raise FewshotError("a name is given twice.")
    return names


def _labels(text: str) -> tuple[str, ...]:
    from lib.labels import clean_name

    return tuple(clean_name(name) for name in _names(text))


def _backbone(text: str) -> str:
    from fewshot.features import check_name

    return check_name(text)


def _slicing(key: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        from fewshot.volumes import SliceSpec

        setting: dict[str, Any] = {key: _whole(text) if key == "size" else text}
        SliceSpec(**setting)
        return setting[key]

    return parse


def _whole(text: str, smallest: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        raise FewshotError("give a whole number.") from None
    if number < smallest:
        raise FewshotError(f"give a whole number of at least {smallest}.")
    return number


def _above_zero(what: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise FewshotError(f"give a number of {what}.") from None
        if not 0 < number < float("inf"):
            raise FewshotError(f"give a number of {what} above 0.")
        return number

    return parse


def _modalities(text: str) -> tuple[str, ...]:
    names = _names(text.upper())
    if wrong := [name for name in names if not re.fullmatch("[A-Z0-9_]{2,16}", name)]:
        raise FewshotError(f"{wrong[0]} is no modality; give DICOM's names, such as CT,MR,PT.")
    return names


def _folder(text: str) -> Path:
    if not text:
        raise FewshotError("give a folder.")
    return Path(text).expanduser().resolve()


def _yes_or_no(text: str) -> bool:
    if text.lower() in ("true", "yes", "1", "on"):
        return True
    if text.lower() in ("false", "no", "0", "off"):
        return False
    raise FewshotError("give true or false.")


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise FewshotError(f"choose from {', '.join(choices)}.")
        return text

    return parse


def _sam(text: str) -> str:
    from fewshot.refine.sam import check_sam

    return text if text == "auto" else check_sam(text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "models": lambda text: None if text == "all" else _names(text),
    "labels": _labels,
    "landmarks": lambda text: None if text == "all" else _labels(text),
    "backbone": _backbone,
    "plane": _slicing("plane"),
    "window": _slicing("window"),
    "size": _slicing("size"),
    "bank": _folder,
    "bank_gb": _above_zero("gigabytes"),
    "workspace": lambda text: str(_folder(text)),
    "complete": _yes_or_no,
    "components": _one_of(COMPONENTS),
    "refine": _one_of(REFINERS),
    "sam": _sam,
    "max_epochs": _whole,
    "train_all": _names,
    "modalities": lambda text: () if text == "all" else _modalities(text),
    "poll": _above_zero("seconds"),
}
