"""What a `dataset.json` beside the studies says about all of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

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
        if file.is_file() and (found := _read(file)):
            return found
    return StudiesDescription()


def _read(file: Path) -> StudiesDescription | None:
    from fewshot.dataset import read_facts

    facts = read_facts(file)
    if facts is None:
        return None
    if facts.problem:
        logger.warning("Label maps without names of their own cannot be read: %s", facts.problem)
    return StudiesDescription(facts.labels, facts.modality, facts.complete, file)
