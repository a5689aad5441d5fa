"""What a `dataset.json` beside the studies says about all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fewshot.errors import FewshotError
from lib.files import read_json

FILE = "dataset.json"


@dataclass(frozen=True)
class StudiesDescription:
    """Facts that hold for every study of a folder.

    Attributes:
        labels: names of the values in label files that come without names of their own.
        modality: "CT", "MR", "XR", or "" where it is not said.
        complete: whether a slice without label is background; None where it is not said.
        source: the file, for messages.
    """

    labels: dict[str, int] = field(default_factory=dict)
    modality: str = ""
    complete: bool | None = None
    source: Path | None = None


def describe_studies(studies: str) -> StudiesDescription:
    """Read `dataset.json` in the studies folder, or in the folder that holds it; both may be missing.

    Raises:
        FewshotError: if it says something that it cannot mean.
    """
    if studies.startswith(("http://", "https://")):
        return StudiesDescription()
    folder = Path(studies).resolve()
    for file in (folder / FILE, folder.parent / FILE):
        try:
            content = read_json(file)
        except FileNotFoundError:
            continue
        if isinstance(content, dict) and isinstance(content.get("labels"), dict):
            return _parse(content, file)
    return StudiesDescription()


def _parse(content: dict[str, object], file: Path) -> StudiesDescription:
    from fewshot.volumes import modality_of

    labels = content["labels"]
    assert isinstance(labels, dict)
    labels = {name: value for name, value in labels.items() if (name, value) != ("background", 0)}
    if not all(type(value) is int and value > 0 for value in labels.values()):
        raise FewshotError(f'"labels" in {file} must give every name a whole number above 0.')
    if len(set(labels.values())) < len(labels):
        raise FewshotError(f'"labels" in {file} gives two names the same value.')
    complete = content.get("complete")
    if complete is not None and not isinstance(complete, bool):
        raise FewshotError(f'"complete" in {file} must be true or false.')
    return StudiesDescription(labels, modality_of(str(content.get("modality", ""))), complete, file)
