"""What a failure says to people, wherever they read it: in an answer, in a log, in the statistics of a training."""

from __future__ import annotations

from fastapi import HTTPException

from fewshot.errors import FewshotError


def expected(error: BaseException) -> bool:
    """Whether the failure's own sentence says all, so that a call stack would only hide it."""
    return isinstance(error, FewshotError | HTTPException | SystemExit)


def sentence(error: BaseException) -> str:
    """The failure's sentence; of one that nobody expected its name too, for `KeyError: 'x'` says more than `'x'`."""
    text = str(error.detail if isinstance(error, HTTPException) else error)
    if text and (expected(error) or isinstance(error, RuntimeError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
