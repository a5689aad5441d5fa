"""How long work tells its caller how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[..., None]
"""Called as ``progress(stage, done, total, **values)``; raising from it cancels the work."""


def silent(stage: str, done: int, total: int, **values: float) -> None:
    """Ignore every report."""
