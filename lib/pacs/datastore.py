"""A PACS as MONAI Label's datastore: images are its series, labels its DICOM segmentations (SEG)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomweb_client import DICOMwebClient
from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.landmarks.results import drop_beside
from lib.pacs.errors import PacsError
from lib.pacs.listing import is_uid
from lib.pacs.model import FINAL, SERIES
from lib.pacs.reading import PacsReading
from lib.pacs.submitting import Submitter
from lib.requested import require_tag, tellable

if TYPE_CHECKING:
    from fewshot.landmarks import LandmarkPrediction
    from lib.pacs.sr_submitting import StoredSr

logger = logging.getLogger(__name__)

Check = Callable[[Path, Path, dict[str, Any], str], None]
"""Called with image, label file, the submission's parameters and the image's id; raises to refuse."""

Names = Callable[[dict[str, Any], str], Mapping[int, str | None]]
"""Called with a submission's parameters and the image's id; returns the names of its values."""

Stored = Callable[[Path, Path, dict[str, Any], str], None]
"""Called with image, label file, its parameters and the image's id when a label was stored here."""


class Pacs(PacsReading):
    """What a PACS has, and what is added to it: final labels as SEGs; everything else that is told stays here.

    Args:
        client: asks the PACS.
        check: refuses a label that must not be saved.
        names: names the values of a label to be saved.
        stored: is told of a label that was stored here, not in the PACS; what it writes beside goes with the label.
        options: of `PacsReading`.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        *,
        check: Check,
        names: Names,
        stored: Stored | None = None,
        **options: Any,
    ) -> None:
        super().__init__(client, **options)
        self._check, self._names, self._stored = check, names, stored
        self._unsent = self._folder / "unsent"
        self._submitter = Submitter(client, self._unsent)

    @override
    def follow(self, seconds: float) -> None:
        if kept := self._submitter.unsent():
            logger.warning(
                "%d labels that the PACS did not take lie in %s: submit them again, then remove them there.",
                kept,
                self._unsent,
            )
        super().follow(seconds)

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
            FewshotError, PacsError: if it cannot be stored; the sentence says where the file is kept. So does the
                log for a failure that nobody expected.
        """
        require_tag(label_tag)
        file, info = Path(label_filename), dict(label_info or {})
        if label_tag == FINAL:
            self._submit(image_id, file, info)
        else:
            self._series(image_id)
            info.pop(SERIES, None)  # that is how a label in the PACS is known
            extension = self._to_id(file.name)[1]
            with self._alone(image_id):
                self._records.keep_label(image_id, label_tag, file, extension, info)
                self._show()
                self._tell_stored(image_id, self._records.label_file(image_id, label_tag, extension), info)
        return image_id

    def _tell_stored(self, image_id: str, kept: Path, info: dict[str, Any]) -> None:
        if self._stored is None:
            return
        try:
            image = Path(self.get_image_uri(image_id))
        except (FewshotError, OSError) as error:
            # the label is kept, and whoever sent it must not be told otherwise
            drop_beside(kept, image_id)
            logger.warning(
                "The label of %s is kept, but nothing could be written beside it: %s", image_id, error
            )
            return
        self._stored(image, kept, info, image_id)

    def _submit(self, image_id: str, file: Path, info: dict[str, Any]) -> None:
        try:
            image = Path(self.get_image_uri(image_id))
            self._check(image, file, info, image_id)
            dicom = self._copies.dicom(self._series(image_id))
            self._submitter.submit(file, self._names(info, image_id), info, image, dicom)
        except HTTPException:
            raise  # it was refused: whoever sent it has to change it
        except Exception as error:
            # whatever went wrong, such as a full disk, somebody drew this label and must not draw it again
            if not is_uid(image_id):
                raise
            kept = self._keep(image_id, file, info)
            if isinstance(error, PacsError):
                raise PacsError(f"{error} {kept}", status=error.status, lost=error.lost) from error
            if isinstance(error, FewshotError | OSError):
                raise FewshotError(f"{error} {kept}") from error
            logger.error("%s", kept)
            raise
        try:
            self._watch.ask(own=image_id)
        except PacsError:
            logger.warning("The label of %s is stored; it counts once the PACS answers again.", image_id)
        except Exception:
            # it is stored: who sent it must not be told that it is not, and the next poll asks again
            logger.exception("The label of %s is stored, and could not be listed yet.", image_id)

    def _keep(self, image_id: str, file: Path, info: dict[str, Any]) -> str:
        """Keep a label that was not stored; says where, or why not."""
        try:
            return f"The label of {image_id} is kept in {self._submitter.keep(image_id, file, info)}."
        except OSError as error:
            return f"The label of {image_id} could not be kept here either ({error}): save it in the viewer."

    def dicom(self, image_id: str) -> Path:
        """The folder with the DICOM files of an image, which is fetched if it is not here.

        Raises:
            PacsError, FewshotError: if it cannot be had.
        """
        series = self._series(image_id)
        self._copies.image(series)
        return self._copies.dicom(series)

    def store_landmarks(self, image_id: str, prediction: LandmarkPrediction, *, creator: str) -> StoredSr:
        """Store landmarks of an image in the PACS as a structured report (SR).

        Raises:
            PacsError, FewshotError: if that cannot be done.
        """
        from lib.pacs.sr_submitting import submit_sr

        return submit_sr(self._client, prediction, self.dicom(image_id), creator=creator)

    @override
    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._series(image_id)
        self._records.tell_image(image_id, tellable(info))
        self._show()

    @override
    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Remember what a viewer tells of a label; what its SEG says itself stays.

        Raises:
            HTTPException: 404 if there is no such label, 422 for what cannot be told of one.
        """
        if series := self._label(label_id, label_tag).info.get(SERIES):
            self._records.tell_seg(label_id, series, tellable(info))
        else:
            self._records.tell_label(label_id, label_tag, tellable(info))
        self._show()

    @override
    def remove_label(self, label_id: str, label_tag: str) -> None:
        if series := self._label(label_id, label_tag).info.get(SERIES):
            raise HTTPException(409, f"The label is the SEG series {series} in the PACS: delete it there.")
        with self._alone(label_id):
            drop_beside(Path(self.get_label_uri(label_id, label_tag)), label_id)
            self._records.drop_label(label_id, label_tag)
            self._show()

    def _alone(self, image_id: str) -> FileLock:
        """No other thread and no other process changes the labels of an image that are here."""
        return FileLock(self._folder / ".locks" / f"{image_id}.labels")

    def _label(self, label_id: str, label_tag: str) -> DataModel:
        require_tag(label_tag)
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
