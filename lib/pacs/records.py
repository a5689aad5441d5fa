"""What this server itself remembers of images in a PACS: what viewers told of them, and labels that stay here."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from lib.files import read_json, stamp, write_json

logger = logging.getLogger(__name__)


class Records:
    """A small JSON file and a folder of labels, shared by the server and its background processes.

    `records.json` holds `{image: {"info": {...}, "labels": {tag: {"ext", "info"}}, "segs": {series: {...}}}}`: what
    viewers told of the image, the labels `labels/TAG/IMAGE.nii.gz`, and what viewers told of SEGs in the PACS.

    Args:
        folder: where both are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "records.json"
        self._mutex = threading.Lock()
        self._lock = FileLock(f"{self._file}.lock")
        self._seen: object = None
        self._content: dict[str, Any] = {}

    def read(self) -> Mapping[str, Any]:
        """All of it; callers must not change it.

        Raises:
            FewshotError: if the file was edited into something that is not JSON.
        """
        with self._mutex:
            return self._read()

    def tell_image(self, image: str, info: Mapping[str, Any]) -> None:
        """Remember something of an image."""
        with self._change(image) as entry:
            entry["info"].update(info)

    def tell_seg(self, image: str, series: str, info: Mapping[str, Any]) -> None:
        """Remember something of an image's SEG in the PACS."""
        with self._change(image) as entry:
            entry["segs"][series] = {**entry["segs"].get(series, {}), **info}

    def tell_label(self, image: str, tag: str, info: Mapping[str, Any]) -> None:
        """Remember something of a label that is here."""
        with self._change(image) as entry:
            label = entry["labels"][tag]
            entry["labels"][tag] = {**label, "info": {**label["info"], **info}}

    def keep_label(self, image: str, tag: str, file: Path, extension: str, info: Mapping[str, Any]) -> None:
        """Keep a label here, in place of one with that tag."""
        target = self.label_file(image, tag, extension)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=target.parent) as beside:
            copied = Path(shutil.copy(file, beside))
            with self._change(image) as entry:
                os.replace(copied, target)
                told = {**info, "ts": int(time.time()), "name": target.name}
                entry["labels"][tag] = {"ext": extension, "info": told}

    def drop_label(self, image: str, tag: str) -> None:
        """Remove a label that is here."""
        with self._change(image) as entry:
            extension = entry["labels"].pop(tag)["ext"]
        self.label_file(image, tag, extension).unlink(missing_ok=True)

    def label_file(self, image: str, tag: str, extension: str) -> Path:
        """The file of a label that is here."""
        return self._folder / "labels" / tag / f"{image}{extension}"

    @contextmanager
    def _change(self, image: str) -> Iterator[dict[str, Any]]:
        """What is remembered of one image, to be changed and then written."""
        with self._mutex, self._lock:
            content = dict(self._read())
            entry: dict[str, Any] = {"info": {}, "labels": {}, "segs": {}}
            entry |= {key: dict(value) for key, value in content.get(image, {}).items()}
            yield entry
            content[image] = entry
            write_json(self._file, content)

    def _read(self) -> dict[str, Any]:
        seen = stamp(self._file)
        if seen != self._seen:
            try:
                self._content = dict(read_json(self._file))
            except FileNotFoundError:
                self._content = {}
            self._seen = seen
        return self._content
