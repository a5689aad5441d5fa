"""What a dataset.json says of images and label values, for those who find the files themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fewshot.dataset.decathlon import is_decathlon, label_values, said_modality
from fewshot.dataset.description import check_fields, check_labels, read_json
from fewshot.dataset.own import FIELDS
from fewshot.errors import FewshotError
from fewshot.volumes import modality_of


@dataclass(frozen=True)
class Facts:
    """Facts that hold for every image and label map beside a dataset.json.

    Attributes:
        labels: label name -> value; empty where none are named.
        modality: "CT", "MR", "XR", or "" where it is not said.
        complete: whether a slice without label is background; None where it is not said.
        problem: why the labels that are named cannot be used; "" without any.
    """

    labels: dict[str, int] = field(default_factory=dict)
    modality: str = ""
    complete: bool | None = None
    problem: str = ""


def read_facts(description: Path) -> Facts | None:
    """Read a dataset.json in the engine's own format, or in that of the Decathlon, nnU-Net and MONAI.

    In the latter, labels that cannot be read are a `problem` and no error: the file was not written for us, and
    its images may well be used without.

    Returns:
        None where it says nothing of labels, so that it may be about anything.

    Raises:
        FewshotError: it is missing or no JSON, or an entry in the engine's own format is wrong.
    """
    fields = read_json(description)
    if not isinstance(fields.get("labels"), dict):
        return None
    if is_decathlon(description.parent, fields):
        complete = fields.get("complete")
        labels: dict[str, int] = {}
        problem = ""
        try:
            labels, _ = label_values(fields["labels"], description)
        except FewshotError as error:
            problem = str(error)
        return Facts(labels, said_modality(fields), complete if isinstance(complete, bool) else None, problem)
    check_fields(fields, FIELDS, description)
    named = {name: value for name, value in fields["labels"].items() if (name, value) != ("background", 0)}
    return Facts(
        check_labels(named, description), modality_of(fields.get("modality", "")), fields.get("complete")
    )
