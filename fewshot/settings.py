"""Checks of the settings of adapters and baselines: type and range derive from their own declaration."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

from fewshot.errors import FewshotError


def number(default: float, *, above: float, below: float) -> Any:
    """A dataclass field that holds a number strictly between two bounds."""
    return field(default=default, metadata={"above": above, "below": below})


def checked_options(owner: str, kind: type[Any], given: dict[str, Any]) -> Any:
    """An instance of somebody's ``Options``.

    Args:
        owner: whose they are, such as "adapter basic", for messages.
        kind: its ``Options`` dataclass.
        given: settings that differ from the defaults; lists are taken for tuples.

    Raises:
        FewshotError: for an unknown setting, or one of the wrong type or out of range.
    """
    known = {each.name: each for each in fields(kind)}
    if unknown := set(given) - set(known):
        raise FewshotError(
            f"{owner[0].upper()}{owner[1:]} has no option {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known)) or 'none'}."
        )
    return kind(**{key: _checked(owner, known[key], value) for key, value in given.items()})


def _checked(owner: str, of: Field[Any], value: Any) -> Any:
    default: Any = of.default
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a text"
    elif isinstance(default, int):
        fits, wanted = type(value) is int and value >= 1, "a whole number of at least 1"
    elif isinstance(default, float):
        above, below = of.metadata["above"], of.metadata["below"]
        fits = isinstance(value, int | float) and not isinstance(value, bool) and above < value < below
        wanted = f"a number between {above:g} and {below:g}"
    else:
        value = tuple(value) if isinstance(value, list) else value
        fits = (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(type(v) is int and v > 0 for v in value)
        )
        wanted = f"{len(default)} whole numbers such as {list(default)}"
    if not fits:
        raise FewshotError(f"Option {of.name} of {owner} is {value!r}; give {wanted}.")
    return value
