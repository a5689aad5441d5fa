"""Weights are asked for by a registered name or by a path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from fewshot.errors import FewshotError

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def name_or_path(name: str, known: Iterable[str], what: str) -> str:
    """A known name as it is, a file or folder as its full path.

    Args:
        name: what was asked for.
        known: names.
        what: what it names, for messages: "backbone", "SAM".

    Raises:
        FewshotError: if there is neither, with what may have been meant.
    """
    names = list(known)
    if name in names:
        return name
    path = Path(name).expanduser()
    if path.exists():
        return str(path.resolve())
    if os.sep in name or path.suffix in SUFFIXES:
        raise FewshotError(
            f"There is no {what} file or folder {name}; check the path, or give one of {', '.join(names)}."
        )
    close = get_close_matches(name.lower(), names, n=3)
    meant = f" ({' or '.join(close)} would come close)" if close else ""
    raise FewshotError(
        f"There is no {what} '{name}': give a checkpoint file or folder, or one of {', '.join(names)}{meant}."
    )
