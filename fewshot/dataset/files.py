"""Files of a folder by case name, and names that somebody typed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from fewshot.errors import FewshotError
from fewshot.volumes.raw import case_name, extension_of

SERVER_FOLDERS = ("labels", "final", "original")
"""Folders that MONAI Label makes in a folder that it serves; they hold submitted labels, not series."""


def list_files(folder: Path) -> dict[str, Path]:
    """Images or label maps of a folder by case name; subfolders are DICOM series, but those of MONAI Label are not.

    Names that begin with a dot are left out, such as the ``._name`` files that macOS puts into archives.

    Raises:
        FewshotError: if two of them have one case name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not (path.is_dir() or extension_of(path)):
            continue
        if path.is_dir() and path.name in SERVER_FOLDERS:
            continue
        name = case_name(path)
        if name in found:
            raise FewshotError(f"{found[name]} and {path} are both called {name}: rename or remove one.")
        found[name] = path
    return found


def check_known(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Refuse names that are not known, and say which come near.

    Raises:
        FewshotError: for the first unknown name.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:3]
            meant = f"did you mean {', '.join(near)}?" if near else "there is none."
            raise FewshotError(f'There is no {what} "{name}": {meant}')
