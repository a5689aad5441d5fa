"""Which files belong to which case: as a dataset.json lists them, or as nnU-Net's folders hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fewshot.dataset.files import list_files
from fewshot.errors import FewshotError
from fewshot.volumes.raw import case_name, extension_of

LISTS = ("training", "validation", "test")
FOLDERS = (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))
NUMBERED = re.compile(r"(.+)_(\d{4})")
"""A case's name and the number of a channel, in nnU-Net's file names."""


@dataclass(frozen=True)
class Entry:
    """The files of one case; some of them may not be there.

    Attributes:
        image: a file with all channels; None where every channel has its own.
        channels: number -> file, where every channel has its own.
        label: the label map; None without any.
    """

    image: Path | None
    label: Path | None
    channels: Mapping[int, Path] = field(default_factory=dict)

    def of_channel(self, index: int) -> tuple[Path | None, int]:
        """The file that holds a channel, and how many files the channels have (0 if it is one for all).

        Where there is no such file, nothing is returned in its place.
        """
        if self.image is None:
            path = self.channels.get(index)
            return path if path and path.exists() else None, len(self.channels)
        if self.image.exists():
            return self.image, 0
        # nnU-Net 1 lists images without the number that their files have
        beside = self.image.with_name(f"{case_name(self.image)}_{index:04d}{extension_of(self.image)}")
        return beside if beside.exists() else None, 1

    @property
    def first(self) -> str:
        """A file name for messages."""
        return str(self.image or next(iter(self.channels.values()), "its image"))


def is_listing(fields: Mapping[str, Any]) -> bool:
    """Whether dataset.json lists images."""
    return any(_is_entry(each) for key in LISTS for each in _entries(fields, key)[:1])


def listed_entries(folder: Path, description: Path, fields: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries of the lists, by the image's file name, or by its whole path where file names repeat.

    Raises:
        FewshotError: an entry that is none, or two of one name.
    """
    entries: dict[PurePosixPath, Entry] = {}
    for key in LISTS:
        for said in _entries(fields, key):
            if not _is_entry(said):
                raise FewshotError(
                    f'"{key}" in {description} has the entry {said!r}: write {{"image": "./imagesTr/a.nii.gz", '
                    '"label": "./labelsTr/a.nii.gz"}.'
                )
            image = said if isinstance(said, str) else said["image"]
            images = _paths(image, "image", description)
            labels = _paths([] if isinstance(said, str) else said.get("label") or [], "label", description)
            if not images or len(labels) > 1:
                raise FewshotError(
                    f'"{key}" in {description} has the entry {said!r}: give one image and one label.'
                )
            if images[0].name.startswith("._"):  # what macOS adds to archives is no image
                continue
            label = folder / labels[0] if labels else None
            files = [folder / each for each in images]
            read = (
                Entry(None, label, dict(enumerate(files)))
                if isinstance(image, list)
                else Entry(files[0], label)
            )
            if entries.setdefault(images[0], read) != read:
                raise FewshotError(
                    f"{description} lists {images[0]} twice, with different labels: remove one."
                )
    return _named(entries, description)


def entries_in_folders(folder: Path) -> dict[str, Entry]:
    """nnU-Net 2: every image in imagesTr and imagesTs, one file per channel, with the labels of the same name.

    Raises:
        FewshotError: one case in both folders.
    """
    entries: dict[str, Entry] = {}
    for images, labels in FOLDERS:
        drawn = list_files(folder / labels)
        channels: dict[str, dict[int, Path]] = {name: {} for name in drawn}
        for name, path in list_files(folder / images).items():
            numbered = None if name in drawn else NUMBERED.fullmatch(name)
            case, number = (numbered[1], int(numbered[2])) if numbered else (name, 0)
            channels.setdefault(case, {})[number] = path
        for name, files in channels.items():
            if name in entries:
                raise FewshotError(f"{folder} has the case {name} in two folders of images: rename one.")
            files = files or {0: folder / images / f"{name}_0000.nii.gz"}
            entries[name] = Entry(None, drawn.get(name), files)
    return entries


def _entries(fields: Mapping[str, Any], key: str) -> list[Any]:
    listed = fields.get(key)
    return listed if isinstance(listed, list) else []


def _is_entry(entry: object) -> bool:
    if isinstance(entry, dict):
        return "image" in entry
    return isinstance(entry, str) and bool(extension_of(Path(entry)))


def _paths(said: object, part: str, description: Path) -> list[PurePosixPath]:
    """Paths of an entry, which may be one text or a list of them; Windows writes the other slash."""
    paths: list[PurePosixPath] = []
    for text in said if isinstance(said, list) else [said]:
        if not isinstance(text, str) or not text:
            raise FewshotError(f'"{part}" in {description} is {said!r} in one entry: it must be a path.')
        paths.append(PurePosixPath(text.replace("\\", "/")))
    return paths


def _named(entries: Mapping[PurePosixPath, Entry], description: Path) -> dict[str, Entry]:
    names = {place: _case_name(Path(place.name), entry.label) for place, entry in entries.items()}
    if len(set(names.values())) < len(names):
        names = {
            place: "_".join(
                part for part in (*place.parts[:-1], case_name(Path(place.name))) if part not in "/.."
            )
            for place in entries
        }
    named: dict[str, Entry] = {}
    for place, entry in entries.items():
        if names[place] in named:
            raise FewshotError(f"{description} lists two images called {names[place]}: rename one.")
        named[names[place]] = entry
    return named


def _case_name(image: Path, label: Path | None) -> str:
    """The image's name; without the number of its channel where the labels are called so."""
    name = case_name(image)
    numbered = NUMBERED.fullmatch(name)
    return numbered[1] if numbered and label and case_name(label) == numbered[1] else name
