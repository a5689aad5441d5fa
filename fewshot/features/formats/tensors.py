"""Files of tensors, read without running anything that is in them: safetensors, and ``torch.save``'s archives."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot.errors import FewshotError

State = dict[str, Tensor]

HEAD_BYTES = 512
WRAPPERS = ("teacher", "model", "state_dict", "model_state_dict", "model_state")
"""Keys under which training programs put the parameters; of a student and its teacher, the teacher is the model."""


def read_tensors(path: Path, what: str = "Backbone file") -> tuple[State, dict[str, str]]:
    """All tensors of a file by name, and the metadata of its header (safetensors only).

    The content decides what kind of file it is, because names mislead. ``torch.save``'s files are pickles: they are
    read with ``weights_only=True``, which builds tensors and containers and refuses everything else.

    Args:
        path: the file.
        what: how messages call it, before its path.

    Raises:
        FewshotError: if the file cannot be read, is cut short, is no file of tensors, or wants code to be run.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise FewshotError(
            f"{what} {path} cannot be read ({error.strerror}); check the path and its rights."
        ) from error
    called = f"{what} {path}"
    _refuse_text(called, head)
    if head[8:9] == b"{":
        return _read_safetensors(path, called)
    return _unwrapped(_read_pickle(path, called), called), {}


def _refuse_text(called: str, head: bytes) -> None:
    start = head.lstrip().lower()
    if not head:
        raise FewshotError(f"{called} is empty; download it again.")
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise FewshotError(
            f"{called} is a web page, perhaps of a login or an error, saved under the name of a "
            "checkpoint; download the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise FewshotError(
            f"{called} is a git-lfs pointer, not the weights; run `git lfs pull` in its folder, or "
            "download the file itself."
        )
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) > len(head) - 4 and all(
        letter.isprintable() or letter.isspace() for letter in text
    ):
        raise FewshotError(
            f"{called} is a text file ('{shorten(text, 40)}'), not a checkpoint; give the weights."
        )


def _read_safetensors(path: Path, called: str) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FewshotError(
            f"{called} is cut short or damaged ({_reason(error)}); download it again."
        ) from error


def _read_pickle(path: Path, called: str) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch goes by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way there is
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise FewshotError(
                f"{called} holds Python objects ({wanted[1]}) besides tensors, and no code "
                "from a file is ever run; give a checkpoint of tensors alone, best as .safetensors."
            ) from error
        # torch's own words on refused pickles advise to run them.
        reason = "not as torch.save writes it" if isinstance(error, UnpicklingError) else _reason(error)
        raise FewshotError(
            f"{called} cannot be read as a checkpoint ({reason}): it may be cut short or of "
            "another kind; download it again."
        ) from error


def _unwrapped(content: Any, called: str) -> State:
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise FewshotError(f"{called} does not hold a dictionary of tensors; give a model checkpoint.")
    return dict(content)


def _reason(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return shorten(first.partition(". ")[0], 120)
