"""The state of a training on disk: written beside and renamed, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from fewshot.errors import FewshotError

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; what was there before stays until the new file is whole.

    Raises:
        FewshotError: if the disk is full or cannot be written; the checkpoint before is untouched.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        part.unlink(missing_ok=True)
        raise FewshotError(
            f"The checkpoint {path} cannot be written ({_reason(error)}); free some space and run the same "
            "command again: it goes on from the checkpoint before."
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that was saved; no pickled code is run.

    Raises:
        FewshotError: if the file is damaged or of another version.
    """
    try:
        with zipfile.ZipFile(path) as file:  # torch does not compare checksums
            if name := file.testzip():
                raise ValueError(f"{name} does not have its checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in any way there is
        raise FewshotError(
            f"The checkpoint {path} cannot be read ({_reason(error)}); start again with --restart."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FewshotError(f"The checkpoint {path} is of another version; start again with --restart.")
    return state


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shorten(lines[0], 160) if lines else type(error).__name__
