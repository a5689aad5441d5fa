"""The files of the OHIF viewer, repaired where they are the ones that the repairs were written for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.ohif.repairs import DIGESTS, REPAIRS, Repair

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"


class Viewer:
    """OHIF's folder as it is served.

    Args:
        folder: where MONAI Label keeps it; the files in it are not changed.
        repairs: what is changed.
        digests: SHA-256 of the files that may be changed.
    """

    def __init__(
        self,
        folder: Path,
        repairs: Sequence[Repair] = REPAIRS,
        digests: Mapping[str, str] = DIGESTS,
    ) -> None:
        self.folder = folder.resolve()
        self.unknown = sorted(
            name for name, digest in digests.items() if _digest(self.folder / name) != digest
        )
        self._repaired: dict[str, bytes] = {}
        if self.unknown:
            # The repairs lean on each other: half of them would call what is not there.
            logger.warning(
                "OHIF's %s in %s differ from those of MONAI Label 0.8.5: OHIF is served as it is, without a button to "
                "submit labels. Install monailabel==0.8.5, or work in 3D Slicer.",
                ", ".join(self.unknown),
                self.folder,
            )
            return
        for name in digests:
            text = (self.folder / name).read_text(encoding="utf-8")
            self._repaired[name] = repaired(text, [each for each in repairs if each.file == name]).encode()
        for path in sorted(STATIC.iterdir()):
            self._repaired[path.name] = path.read_bytes()

    def content(self, path: str) -> bytes | Path:
        """What is served under a path: a repaired file's bytes, or the file; the page itself for any other address.

        OHIF is one page that reads its address: whatever is no file is one of its addresses.
        """
        if path in self._repaired:
            return self._repaired[path]
        if found := self._file(path):
            return found
        return self._repaired.get(INDEX, self.folder / INDEX)

    def _file(self, path: str) -> Path | None:
        try:
            file = (self.folder / path).resolve()
            inside = bool(path) and file.is_file() and file.is_relative_to(self.folder)
        except (OSError, ValueError):  # no file can have this name: it is too long, or holds a zero byte
            return None
        return file if inside else None


def repaired(text: str, repairs: Sequence[Repair]) -> str:
    """A file's text with its repairs.

    Raises:
        ValueError: if a repair's text does not occur as often as it says.
    """
    for repair in repairs:
        if text.count(repair.old) != repair.times:
            raise ValueError(f"{repair.file} has {text.count(repair.old)} times: {repair.old}")
        text = text.replace(repair.old, repair.new)
    return text


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
