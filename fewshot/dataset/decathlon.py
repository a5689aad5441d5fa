"""The layout of the Medical Segmentation Decathlon, with what nnU-Net and MONAI made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.dataset.case import Case, Contents
from fewshot.dataset.description import OPTIONS, check_fields, check_labels
from fewshot.dataset.listing import FOLDERS, entries_in_folders, is_listing, listed_entries
from fewshot.errors import FewshotError
from fewshot.volumes import modality_of
from fewshot.volumes.channels import Channel

SEQUENCES = re.compile(r"T[12]|T[12][A-Z]+|FLAIR|ADC|DWI|PD|SWI|DCE|LGE", re.IGNORECASE)
"""Names of channels that only MR has."""
IGNORE = "ignore"
"""nnU-Net's name for voxels of which nobody said what they are."""


def is_decathlon(folder: Path, fields: Mapping[str, Any]) -> bool:
    """Whether dataset.json lists files, or lies beside nnU-Net's folders."""
    return is_listing(fields) or (bool(fields) and (folder / FOLDERS[0][0]).is_dir())


def read_decathlon(folder: Path, description: Path, fields: Mapping[str, Any]) -> Contents:
    """List the cases that dataset.json names ("training", "validation", "test"), or those in imagesTr and imagesTs.

    A case whose files are missing is no error of the whole: `Contents.missing` says why it cannot be used.
    Label maps are taken for complete, because the format calls 0 background, unless nnU-Net's "ignore" label or
    "complete": false says otherwise.

    Raises:
        FewshotError: an invalid dataset.json, an unknown channel, no case, or two cases of one name.
    """
    check_fields(fields, OPTIONS, description)
    labels, ignored = label_values(fields.get("labels", {}), description)
    names = _channel_names(fields)
    channel = _channel(fields.get("channel", 0), names, description)
    listed = is_listing(fields)
    entries = listed_entries(folder, description, fields) if listed else entries_in_folders(folder)
    if not entries:
        raise FewshotError(f'{description} lists no image: name at least one in "training".')
    cases: dict[str, Case] = {}
    missing: dict[str, str] = {}
    unlabelled = set()
    for name, entry in sorted(entries.items()):
        image, files = entry.of_channel(channel.index)
        label = entry.label if entry.label and entry.label.exists() else None
        if image is None:
            if entry.label is None:
                unlabelled.add(name)
            missing[name] = (
                f"The image of channel {channel.index} of {name} is missing ({entry.first}): add it."
            )
            continue
        if entry.label and not label:
            missing[name] = f"The labels of {name} are missing ({entry.label}): add the file."
        count = max(files, len(names))
        notes = (channel.of(count),) if files and count > 1 else ()
        cases[name] = Case(name, image, label, channel=None if files else channel, notes=notes)
    if not labels and any(case.label for case in cases.values()):
        raise FewshotError(
            f'{description} names no labels: write "labels": {{"0": "background", "1": "liver"}}.'
        )
    return Contents(
        source=description,
        name=str(fields.get("name") or folder.resolve().name),
        cases=cases,
        labels=labels,
        modality=_modality(channel.name) or said_modality(fields),
        hounsfield=fields.get("hounsfield", True),
        complete=fields.get("complete", not ignored),
        ignored=frozenset({*fields.get("ignore", ()), *ignored}),
        missing=missing,
        unlabelled=frozenset(unlabelled),
    )


def said_modality(fields: Mapping[str, Any]) -> str:
    """The modality that the names of all channels together say: CT, MR, XR or nothing."""
    return _modality(" ".join(_channel_names(fields).values()))


def label_values(declared: object, description: Path) -> tuple[dict[str, int], set[int]]:
    """Label name -> value from {"1": "liver"} (MSD) or {"liver": 1} (nnU-Net 2), and the values to ignore.

    Raises:
        FewshotError: for the first entry that is neither, such as a region of several values.
    """
    if not isinstance(declared, dict):
        raise FewshotError(f'"labels" in {description} is {declared!r}: it must be such as {{"1": "liver"}}.')
    labels: dict[str, Any] = {}
    for key, value in declared.items():
        name, number = (value, key) if key.isdecimal() and isinstance(value, str) else (key, value)
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if isinstance(number, list):
            raise FewshotError(
                f'Label "{name}" in {description} is a region of the values {number}: regions may overlap and '
                "cannot be read, so name each single value of the label maps instead."
            )
        if type(number) is int and number == 0:  # background, whatever it is called
            continue
        if name in labels:
            raise FewshotError(f'Two values in {description} are called "{name}": give each its own name.')
        labels[name] = number
    checked = check_labels(labels, description)
    ignored = {checked.pop(IGNORE)} if IGNORE in checked else set()
    return checked, ignored


def _channel_names(fields: Mapping[str, Any]) -> dict[int, str]:
    """Channel number -> name, from "channel_names" (nnU-Net 2) or "modality" (object, list or text)."""
    said = fields.get("channel_names", fields.get("modality", ""))
    if isinstance(said, dict):
        return {int(key): str(name) for key, name in said.items() if key.isdecimal()}
    return dict(enumerate(map(str, said if isinstance(said, list) else [said])))


def _channel(wanted: object, names: Mapping[int, str], description: Path) -> Channel:
    """The channel that is used, told by number or name."""
    by_name = {name.lower(): index for index, name in names.items()}
    index = by_name.get(wanted.lower()) if isinstance(wanted, str) else wanted
    if type(index) is not int or index < 0 or (len(names) > 1 and index not in names):
        known = ", ".join(
            f"{number} ({name})" if name else str(number) for number, name in sorted(names.items())
        )
        raise FewshotError(f'"channel" in {description} is {wanted!r}: choose among {known or "0"}.')
    return Channel(index, names.get(index, ""))


def _modality(text: str) -> str:
    """CT, MR or XR as a text says it, MR also by the names of its sequences."""
    words = re.findall(r"[A-Z0-9]+", text.upper())
    return modality_of(text) or ("MR" if any(SEQUENCES.fullmatch(word) for word in words) else "")
