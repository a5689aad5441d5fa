"""What MONAI Label's datastore says of a PACS: its own model, made of what the PACS has and what is remembered here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.pacs.catalog import Contents, Seg
from lib.pacs.fetching import NIFTI
from lib.pacs.listing import Series

FINAL, ORIGINAL = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value

SERIES = "SeriesInstanceUID"
"""What the info of a label in the PACS has, and that of a label kept here has not."""


def objects(contents: Contents, records: Mapping[str, Any]) -> dict[str, ImageLabelModel]:
    """All images with at most one label per tag.

    `final` is a person's SEG, `original` a model's SEG or a result that was kept here, whichever is newer.

    Args:
        contents: what the PACS has.
        records: what `Records` remembers.
    """
    made = {}
    for uid, series in contents.images.items():
        entry = records.get(uid, {})
        labels = {
            tag: DataModel(ext=label["ext"], info=label["info"])
            for tag, label in entry.get("labels", {}).items()
            if tag != FINAL
        }
        if seg := contents.persons.get(uid):
            labels[FINAL] = DataModel(
                ext=NIFTI, info={**entry.get("segs", {}).get(seg.series, {}), **seg_info(seg, series)}
            )
        if (seg := contents.models.get(uid)) and not _newer(labels.get(ORIGINAL), seg):
            labels[ORIGINAL] = DataModel(ext=NIFTI, info=seg_info(seg, series))
        info = {**entry.get("info", {}), **series.info, "name": f"{uid}{NIFTI}"}
        made[uid] = ImageLabelModel(image=DataModel(ext=NIFTI, info=info), labels=labels)
    return made


def seg_info(seg: Seg, image: Series) -> dict[str, Any]:
    """A SEG as the info of a label: value n of the label map is the n-th name.

    Slicer shows a draft by `label_names`: it gives the n-th name the value n, and drops one called background.
    """
    names: dict[str, int] = {}
    for position, segment in enumerate(seg.header.segments, start=1):
        taken = segment.name in names or segment.name == "background"
        names[f"{segment.name} ({position})" if taken else segment.name] = position
    return {
        "params": {"label_names": names},
        "label_info": [
            {"name": segment.name, "idx": position}
            for position, segment in enumerate(seg.header.segments, start=1)
        ],
        SERIES: seg.series,
        "StudyInstanceUID": image.study,
        "SeriesDescription": seg.header.description,
        "Modality": "SEG",
        "PatientID": image.info.get("PatientID", ""),
        "ts": seg.seconds,
        "name": f"{image.uid}{NIFTI}",
    }


def _newer(label: DataModel | None, seg: Seg) -> bool:
    told = label.info.get("ts") if label else None
    return isinstance(told, int) and told > seg.seconds
