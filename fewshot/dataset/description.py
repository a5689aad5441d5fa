"""dataset.json: what its entries may be, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot.errors import FewshotError

OPTIONS: dict[str, tuple[type, str]] = {
    "hounsfield": (bool, "true or false"),
    "complete": (bool, "true or false"),
    "ignore": (list, "a list of label values"),
}
"""What dataset.json may say beside names and files, in every layout that has one."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a dataset.json holds.

    Raises:
        FewshotError: it is missing, or is no JSON object.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a mark
    except FileNotFoundError:
        raise FewshotError(
            f"{path.resolve()} is missing: it names the label values, such as "
            '{"labels": {"liver": 1, "spleen": 2}, "modality": "CT"}.'
        ) from None
    except (OSError, ValueError) as error:
        raise FewshotError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise FewshotError(f'{path} must hold an object such as {{"labels": {{"liver": 1}}}}.')
    return fields


def check_fields(fields: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]], path: Path) -> None:
    """Refuse entries of the wrong kind.

    Args:
        fields: the content of dataset.json.
        kinds: key -> its type and how to say it; keys that are not there are fine.
        path: the file.

    Raises:
        FewshotError: for the first such entry.
    """
    for key, (kind, form) in kinds.items():
        if key in fields and not isinstance(fields[key], kind):
            raise FewshotError(f'"{key}" in {path} is {fields[key]!r}: it must be {form}.')
    if not all(type(value) is int for value in fields.get("ignore", ())):
        raise FewshotError(f'"ignore" in {path} is {fields["ignore"]!r}: it must be a list of label values.')


def check_labels(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Label name -> value, each value once; background is no label and must not be among them.

    Raises:
        FewshotError: for the first name or value that cannot be one.
    """
    owners: dict[int, str] = {}
    for name, value in labels.items():
        if type(value) is not int or not 1 <= value <= 65535:
            raise FewshotError(
                f'Label "{name}" in {path} has the value {value!r}: write {{"name": 1}}, values 1 to 65535.'
            )
        if not name.strip():
            raise FewshotError(f"The label of value {value} in {path} has no name: give it one.")
        if value in owners:
            raise FewshotError(
                f'Labels "{owners[value]}" and "{name}" in {path} share the value {value}: give each its own.'
            )
        owners[value] = name
    return {name: value for value, name in owners.items()}
