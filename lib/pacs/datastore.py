"""A PACS as MONAI Label's datastore: images are its series, labels its DICOM segmentations (SEG)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from fastapi import HTTPException
from monailabel.datastore.local import DataModel
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.pacs.catalog import is_uid
from lib.pacs.errors import PacsError
from lib.pacs.model import FINAL, SERIES
from lib.pacs.reading import PacsReading
from lib.pacs.submitting import Submitter

logger = logging.getLogger(__name__)

Check = Callable[[Path, Path, dict[str, Any], str], None]
"""Called with image, label file, the submission's parameters and the image's id; raises to refuse."""

Names = Callable[[dict[str, Any], str], Mapping[int, str | None]]
"""Called with a submission's parameters and the image's id; returns the names of its values."""


class Pacs(PacsReading):
    """What a PACS has, and what is added to it: final labels as SEGs; everything else that is told stays here.

    Args:
        client: asks the PACS.
        check: refuses a label that must not be saved.
        names: names the values of a label to be saved.
        options: of `PacsReading`.
    """

    def __init__(self, client: DICOMwebClient, *, check: Check, names: Names, **options: Any) -> None:
        super().__init__(client, **options)
        self._check, self._names = check, names
        self._submitter = Submitter(client, self._folder / "unsent")

    @override
    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any],
        label_id: str = "",
    ) -> str:
        """Store a final label in the PACS as a SEG, once it was checked; labels with other tags are kept here.

        Raises:
            HTTPException: 422 for a label that cannot be one; nothing is changed.
            FewshotError, PacsError: if it cannot be stored; the sentence says where the file is kept.
        """
        if not label_tag or Path(label_tag).name != label_tag:
            raise HTTPException(422, f"A label cannot have the tag {label_tag!r}: use final or original.")
        file, info = Path(label_filename), dict(label_info or {})
        if label_tag == FINAL:
            self._submit(image_id, file, info)
        else:
            self._series(image_id)
            info.pop(SERIES, None)  # that is how a label in the PACS is known
            self._records.keep_label(image_id, label_tag, file, self._to_id(file.name)[1], info)
            self._show()
        return image_id

    def _submit(self, image_id: str, file: Path, info: dict[str, Any]) -> None:
        try:
            image = Path(self.get_image_uri(image_id))
            self._check(image, file, info, image_id)
            dicom = self._copies.dicom(self._series(image_id))
            self._submitter.submit(file, self._names(info, image_id), info, image, dicom)
        except FewshotError as error:
            if not is_uid(image_id):
                raise
            kept = f"{error} The label of {image_id} is kept in {self._submitter.keep(image_id, file, info)}."
            if isinstance(error, PacsError):
                raise PacsError(kept, status=error.status, lost=error.lost) from error
            raise FewshotError(kept) from error
        try:
            self._watch.ask(own=image_id)
        except PacsError:
            logger.warning("The label of %s is stored; it counts once the PACS answers again.", image_id)

    @override
    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._series(image_id)
        self._records.tell_image(image_id, info)
        self._show()

    @override
    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        if series := self._label(label_id, label_tag).info.get(SERIES):
            self._records.tell_seg(label_id, series, info)
        else:
            self._records.tell_label(label_id, label_tag, info)
        self._show()

    @override
    def remove_label(self, label_id: str, label_tag: str) -> None:
        if series := self._label(label_id, label_tag).info.get(SERIES):
            raise HTTPException(409, f"The label is the SEG series {series} in the PACS: delete it there.")
        self._records.drop_label(label_id, label_tag)
        self._show()

    def _label(self, label_id: str, label_tag: str) -> DataModel:
        label = self._datastore.label(label_id, label_tag)
        if label is None:
            raise HTTPException(404, f"There is no label {label_id} with tag {label_tag}.")
        return label

    @override
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise HTTPException(409, f"Images come from the PACS: send them to {self.url}.")

    @override
    def remove_image(self, image_id: str) -> None:
        raise HTTPException(409, f"Images are in the PACS {self.url}: delete them there.")
