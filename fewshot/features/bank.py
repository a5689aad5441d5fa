"""The feature bank: patch features on disk, computed once per volume, backbone and slicing.

What other frozen networks make of slices (`FeatureBank.arrays`) is kept in the same way.

An entry is one safetensors file, named by the digest of its signature. It is written beside and renamed into
place, carries its signature and a checksum, and is memory-mapped when read. Whatever does not match is computed
again and reported, never used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from fewshot.errors import FewshotError
from fewshot.features.backbone import Backbone
from fewshot.features.extraction import FEATURES_VERSION, compute_features
from fewshot.progress import Progress, silent
from fewshot.volumes import SliceStack

logger = logging.getLogger(__name__)

DEFAULT_GIGABYTES = 20.0

ABANDONED_SECONDS = 24 * 3600

Arrays = dict[str, np.ndarray]


def default_bank_folder() -> Path:
    """``$FEWSHOT_BANK``, else ``fewshot/bank`` in the user's cache folder."""
    told = os.environ.get("FEWSHOT_BANK")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else cache / "fewshot" / "bank"


@dataclass(frozen=True, eq=False)
class BankEntry:
    """Patch features of one volume.

    Attributes:
        features: float16 ``[R, h, w, dim]``, one row per slice that is not air; memory-mapped.
        rows: int32 ``[S]``, the row of each slice, -1 for slices of air.
        fresh: True if they were computed for this call.
    """

    features: np.ndarray
    rows: np.ndarray
    fresh: bool

    def of_slice(self, index: int) -> Tensor:
        """Features of one slice that is not air, float32 ``[h, w, dim]``."""
        return torch.from_numpy(
            np.array(self.features[self.rows[index]])
        ).float()  # torch widens faster than numpy


class FeatureBank:
    """Patch features of volumes, kept on disk and shared by processes.

    Args:
        folder: where entries live; made if missing.
        gigabytes: size limit; the least recently used entries go first.

    Raises:
        FewshotError: if the folder cannot be made or the limit is not positive.
    """

    def __init__(self, folder: Path | str, *, gigabytes: float = DEFAULT_GIGABYTES) -> None:
        if not 0 < gigabytes < math.inf:
            raise FewshotError(f"The feature bank's size limit is {gigabytes} GB; give a positive number.")
        self.folder = Path(folder)
        self.limit = int(gigabytes * 1e9)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewshotError(
                f"The feature bank folder {self.folder} cannot be made ({error.strerror}); choose another folder."
            ) from error
        self._verified: set[tuple[str, int]] = set()

    def features(self, stack: SliceStack, backbone: Backbone, *, progress: Progress = silent) -> BankEntry:
        """The patch features of a stack, from disk where they are, else computed and stored.

        A second process that wants the same entry waits for the first instead of computing it too.
        """

        def compute() -> Arrays:
            features, rows = compute_features(stack, backbone, progress=progress)
            return {"features": features, "rows": rows}

        found, fresh = self.arrays(entry_signature(stack, backbone), compute, name=stack.volume.name)
        if not fresh:
            progress("features", len(stack), len(stack))
        return BankEntry(found["features"], np.array(found["rows"]), fresh=fresh)

    def arrays(
        self, signature: dict[str, Any], compute: Callable[[], Arrays], *, name: str = ""
    ) -> tuple[Arrays, bool]:
        """Arrays by name, from disk where they are (memory-mapped), else computed and stored.

        Args:
            signature: everything that they depend on, as JSON can hold it.
            compute: makes them; float16 and int32 can be kept.
            name: whose they are, for messages.

        Returns:
            The arrays, and whether they were computed for this call.
        """
        path = self.path(signature)
        if (found := self._read(path, signature)) is not None:
            return found, False
        with self._only_one(path):
            if (found := self._read(path, signature)) is not None:
                return found, False
            made = compute()
            try:
                self._write(path, signature, made)
            except (OSError, SafetensorError) as error:
                logger.warning("Features of %s were not stored in %s: %s", name, self.folder, error)
            else:
                self._evict(keep=path)
        return made, True

    @contextmanager
    def _only_one(self, path: Path) -> Iterator[None]:
        """Other processes wait; where the folder cannot be written, each computes for itself."""
        lock = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have cleared the cache meanwhile
            lock = FileLock(f"{path}.lock", mode=self._mode())
            lock.acquire()
        except OSError as error:
            logger.warning("The feature bank %s cannot be locked (%s).", self.folder, error)
        try:
            yield
        finally:
            if lock is not None and lock.is_locked:
                lock.release()
                with suppress(OSError):
                    os.unlink(lock.lock_file)

    def _mode(self) -> int:
        """Whoever may use the folder may use its files."""
        return self.folder.stat().st_mode & 0o666

    def path(self, signature: dict[str, Any]) -> Path:
        """The file of an entry."""
        digest = hashlib.blake2b(_canonical(signature).encode(), digest_size=16).hexdigest()
        return self.folder / f"{digest}.safetensors"

    def has(self, signature: dict[str, Any]) -> bool:
        """Whether there is an entry; it may still turn out to be damaged when it is read."""
        return self.path(signature).exists()

    def _read(self, path: Path, signature: dict[str, Any]) -> Arrays | None:
        try:
            header, start = _read_header(path)
            if header["__metadata__"]["signature"] != _canonical(signature):
                raise ValueError("it was made from something else")
            arrays = {
                key: _map_tensor(path, start, header[key]) for key in sorted(header) if key != "__metadata__"
            }
            stamp = (path.name, path.stat().st_mtime_ns)
            if stamp not in self._verified and _checksum(arrays) != header["__metadata__"]["checksum"]:
                raise ValueError("its checksum is wrong")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            logger.warning("Feature bank entry %s is damaged (%s); it is computed again.", path, error)
            return None
        with suppress(OSError):
            os.utime(path)  # least recently used goes first
            self._verified.add((path.name, path.stat().st_mtime_ns))
        return arrays

    def _write(self, path: Path, signature: dict[str, Any], arrays: Arrays) -> None:
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            # they are written as they lie in memory
            arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
            metadata = {"signature": _canonical(signature), "checksum": _checksum(arrays)}
            save_file(arrays, temporary, metadata=metadata)
            temporary.chmod(self._mode())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _evict(self, *, keep: Path) -> None:
        try:
            self._remove_oldest(keep=keep)
        except OSError as error:
            logger.warning("The feature bank %s may grow over its limit (%s).", self.folder, error)

    def _remove_oldest(self, *, keep: Path) -> None:
        with FileLock(self.folder / ".evict.lock", mode=self._mode()):
            for path, stat in _stats(self.folder.glob(".*tmp*")):
                if time.time() - stat.st_mtime > ABANDONED_SECONDS:  # left by a process that was killed
                    path.unlink(missing_ok=True)
            entries = sorted(
                (
                    (stat.st_mtime, stat.st_size, path)
                    for path, stat in _stats(self.folder.glob("*.safetensors"))
                ),
                reverse=True,
            )
            used = 0
            for _, size, path in entries:
                used += size
                if used > self.limit and path != keep:
                    logger.info("Feature bank is over its limit; %s goes.", path.name)
                    with suppress(OSError):  # another process may read it where open files cannot be removed
                        path.unlink()


def entry_signature(stack: SliceStack, backbone: Backbone) -> dict[str, Any]:
    """Everything that features depend on."""
    return {
        "stack": stack.digest,
        "backbone": backbone.digest,
        "layers": backbone.layers,
        "dtype": str(backbone.dtype),
        "version": FEATURES_VERSION,
    }


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < min(path.stat().st_size, 1 << 20):
            raise ValueError("its header is cut off")
        return json.loads(file.read(length)), 8 + length


_DTYPES: dict[str, type[np.generic]] = {"F16": np.float16, "I32": np.int32}


def _map_tensor(path: Path, start: int, entry: dict[str, Any]) -> np.ndarray:
    shape = tuple(entry["shape"])
    if 0 in shape:
        return np.empty(shape, _DTYPES[entry["dtype"]])  # an empty file region cannot be mapped
    return np.memmap(path, _DTYPES[entry["dtype"]], "r", start + entry["data_offsets"][0], shape)


def _checksum(arrays: Arrays) -> str:
    value = 0
    for key in sorted(arrays):
        if (array := arrays[key]).size:
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def _canonical(signature: dict[str, Any]) -> str:
    return json.dumps(signature, sort_keys=True)


def _stats(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        with suppress(FileNotFoundError):  # another process evicts at the same time
            yield path, path.stat()
