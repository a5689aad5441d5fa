"""Official weights from the Hugging Face hub: downloaded once, checked against the hub's checksum, kept in its cache.

The cache is the one that every program using ``huggingface_hub`` shares (``$HF_HUB_CACHE``, else
``~/.cache/huggingface/hub``). A file in it is named by its SHA-256, so it is checked at every load without any network.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fewshot.errors import FewshotError
from fewshot.progress import Progress

logger = logging.getLogger(__name__)

FILE = "model.safetensors"
"""What weights are called on the hub, where nothing else is said."""

PATIENCE = 8.0
"""Seconds until the hub must have told about the file; without network there is nothing to wait for."""

T = TypeVar("T")

SHA256 = re.compile(r"[0-9a-f]{64}")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Weights:
    """Where weights lie on the hub.

    Attributes:
        repository: ``OWNER/NAME``.
        licence: what must be accepted there before a download, in words.
        file: its name there; only tensors are ever read from it (`fewshot.features.formats.tensors`).
        option: how a user gives a file instead; for messages.
    """

    repository: str
    licence: str | None = None
    file: str = FILE
    option: str = "--backbone FILE, or --conf backbone FILE"


def fetch(
    name: str, weights: Weights, *, progress: Progress | None = None, patience: float = PATIENCE
) -> Path:
    """The file of these weights, from the cache or else the network.

    Args:
        name: how the user calls the model; for messages.
        weights: what to get.
        progress: told of the download as stage ``download`` in megabytes; without it a bar appears on stderr.
        patience: seconds until the hub must answer.

    Raises:
        FewshotError: without network, without permission, or if the content does not have the hub's checksum.
    """
    if path := cached(weights):
        return path
    if _offline():
        raise _failure(name, weights, "HF_HUB_OFFLINE is set")
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        url = hf_hub_url(weights.repository, weights.file, endpoint=endpoint)
        told = _within(patience, lambda: get_hf_file_metadata(url, timeout=patience, endpoint=endpoint))
        checksum = told.etag or ""
        if not SHA256.fullmatch(checksum):
            raise _failure(name, weights, f"{url} tells no SHA-256 to check the file with")
        path = Path(
            hf_hub_download(
                weights.repository,
                weights.file,
                endpoint=endpoint,
                etag_timeout=patience,
                tqdm_class=_bar(progress) if progress else None,
            )
        )
    except FewshotError:
        raise
    except Exception as error:  # any of several network libraries may fail, each in its own way
        raise _failure(name, weights, _reason(error, weights)) from error
    if not _matches(path, checksum):
        _remove(path)
        raise FewshotError(
            f"The downloaded weights of {name} do not have the checksum that the hub tells, and {path} was removed; "
            "try again, or look what changes files on their way."
        )
    return path


def cached(weights: Weights) -> Path | None:
    """The file in the cache, if it is there and whole; a damaged one is removed, with a warning."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(weights.repository, weights.file)
    if not isinstance(found, str):
        return None
    path = Path(found)
    # The cache links to a file named by its checksum. Where links are switched off nothing is known any more.
    checksum = path.readlink().name if path.is_symlink() else ""
    if SHA256.fullmatch(checksum) and not _matches(path, checksum):
        logger.warning("%s does not have its checksum any more and is removed.", path)
        _remove(path)
        return None
    return path


def present(weights: Weights) -> bool:
    """Whether the cache has the file; quick, for its content is not looked at (`cached` does that)."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(weights.repository, weights.file), str)


def _offline() -> bool:
    from huggingface_hub import constants

    said = os.environ.get("HF_HUB_OFFLINE", "").upper()
    return said in constants.ENV_VARS_TRUE_VALUES or constants.is_offline_mode()


def _matches(path: Path, sha256: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _remove(path: Path) -> None:
    for file in (path.resolve(), path):
        file.unlink(missing_ok=True)


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """What ``ask`` returns; looking up a host's name may block for longer than any timeout of the client."""
    answers: list[T | Exception] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _failure(name: str, weights: Weights, reason: str) -> FewshotError:
    return FewshotError(
        f"The weights of {name} are not on this machine and cannot be downloaded ({reason}); give a checkpoint file "
        f"({weights.option}), or use embedded."
    )


def _reason(error: Exception, weights: Weights) -> str:
    from huggingface_hub import constants

    hub = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        licence = weights.licence or "a licence"
        return (
            f"the hub answers {status}: accept {licence} at {hub}/{weights.repository}, then `hf auth login`"
        )
    if status:
        return f"{hub}/{weights.repository} answers {status}"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{hub}: {first.rstrip('.')}"


def _bar(progress: Progress) -> type:
    """A stand-in for tqdm's class that tells ``progress`` instead of drawing."""

    class Bar:
        def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
            self.total, self.n = total, initial
            self.update(0)

        def update(self, count: float | None = 1) -> None:
            self.n += count or 0
            if self.total:
                whole = math.ceil(self.total / MEGABYTE)
                progress("download", whole if self.n >= self.total else int(self.n / MEGABYTE), whole)

        def update_transfer(self, count: float) -> None:
            """Bytes on the line; the bytes of the file are what counts."""

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing was drawn."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            if name.startswith("_"):
                raise AttributeError(name)
            return lambda *_, **__: None  # set_postfix_str, refresh, close: there is nothing to draw

    return Bar
