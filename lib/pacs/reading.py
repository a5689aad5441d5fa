"""What MONAI Label and viewers are told of a PACS, and the files that they get."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel
from monailabel.utils.others.generic import md5_digest
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.pacs.catalog import Catalog, Contents, Seg
from lib.pacs.errors import GONE, PacsError
from lib.pacs.fetching import Copies, UnreadableSegError
from lib.pacs.lately import FailedLately
from lib.pacs.listing import Series
from lib.pacs.model import FINAL, SERIES, objects, seg_info
from lib.pacs.records import Records
from lib.pacs.watching import Labelled, Watch

logger = logging.getLogger(__name__)


class PacsReading(DICOMWebDatastore):
    """What a PACS has, asked for every few seconds; nothing but asking and fetching waits for it.

    MONAI Label's own class keeps each answer for two hours and forgets label names. Of it, only what viewers
    and endpoints see is kept.

    Args:
        client: asks the PACS.
        cache: folder of all PACS' copies; each has its own folder in it.
        search: QIDO filter for images; empty for all.
        modalities: those wanted; empty for all that hold images.
        on_change: called with the images that a person has labelled anew, and whether that happened since the
            start; not for labels saved through this datastore.
        vanished: called with the images that there are when others are gone, or may be since the last start.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        *,
        cache: Path,
        search: Mapping[str, Any] | None = None,
        modalities: Collection[str] = (),
        on_change: Labelled | None = None,
        vanished: Callable[[Collection[str]], None] | None = None,
    ) -> None:
        self.url, self._on_change, self._vanished = str(client.base_url), on_change, vanished
        self._client = client
        self._folder = cache / md5_digest(self.url)
        catalog = Catalog(client, search, modalities, unusable=self._folder / "unusable.json")
        # not DICOMWebDatastore's, which watches files; what the PACS has is not in files
        LocalDatastore.__init__(self, str(self._folder), auto_reload=False, read_only=True)
        self._copies, self._records = Copies(client, self._folder), Records(self._folder)
        self._showing = threading.Lock()
        self._shown: tuple[Contents, Mapping[str, Any]] | None = None
        self._failed = FailedLately()
        self._watch = Watch(catalog, seen=self._seen, labelled=self._labelled)

    # --- what the PACS has ---------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Why the PACS does not answer; None while it does."""
        return self._watch.problem

    @override
    def refresh(self) -> None:
        """Ask the PACS now what it has.

        Raises:
            PacsError: if it does not say; what was known stays.
        """
        self._watch.ask()

    def follow(self, seconds: float) -> None:
        """From now on ask every few seconds in the background; waits a while for the first answer."""
        self._watch.follow(seconds)

    def _seen(self, before: Contents, now: Contents) -> None:
        """Show what the PACS has now, and remove the copies of what is gone."""
        self._show()
        if not before.answered:
            self._copies.forget_all_but(now)
        gone = before.images.keys() - now.images.keys()
        if self._vanished and (gone or not before.answered):
            self._vanished(now.images)
        for image in gone:
            logger.info("The series %s is not in the PACS any more", image)
            self._copies.forget(image)
            self._failed.forget(image)
        keys = {series.key for series in before.images.values()}
        changed = {image for image, series in now.images.items() if series.key not in keys}
        counting = {seg.series for seg in now.segs() if seg.header.image_series not in changed}
        for series in {seg.series for seg in before.segs()} - counting:
            self._copies.forget_seg(series)

    def _show(self) -> None:
        """From now on show what the PACS has and what is remembered here."""
        with self._showing:
            contents, records = self._watch.contents, self._records.read()
            if self._shown and self._shown[0] is contents and self._shown[1] is records:
                return
            self._datastore = LocalDatastoreModel(
                name=self.url,
                description=f"PACS {self.url}",
                images_dir=".",
                objects=objects(contents, records),
                base_path=self._datastore_path,
            )
            self._shown = contents, records

    def _labelled(self, images: list[str], since: bool) -> None:
        """Tell of labels by others; try those that are new, so that one which cannot be used does not count."""
        for image in images if since else ():
            try:
                self.get_label_uri(image, FINAL)
            except FewshotError as error:
                logger.warning("The label of %s cannot be used now: %s", image, error)
        if self._on_change:
            self._on_change(images, since)

    # --- what others ask of a datastore; nothing here waits for the PACS --------------------------------------

    @override
    def list_images(self) -> list[str]:
        return list(self._datastore.objects)

    @override
    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return LocalDatastore.get_labeled_images(self)

    @override
    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Images that nobody has labelled, without those that turned out to be unreadable, some for a while.

        Raises:
            PacsError: if the PACS has not said yet what it has, or failed just now over all that would be left.
        """
        if self._watch.problem and not self._watch.contents.images:
            raise PacsError(self._watch.problem, lost=True)
        readable = {
            uid for uid, series in self._watch.contents.images.items() if self._copies.problem(series) is None
        }
        images = [image for image in LocalDatastore.get_unlabeled_images(self) if image in readable]
        failed = self._failed.errors()
        offered = [image for image in images if image not in failed]
        if images and not offered:
            error = failed[images[0]]
            raise PacsError(str(error), status=error.status)
        return offered

    @override
    def get_image_info(self, image_id: str) -> dict[str, Any]:
        entry, series = self._datastore.objects.get(image_id), self._watch.contents.images.get(image_id)
        if entry is None or series is None:
            return {}
        info: dict[str, Any] = copy.deepcopy(entry.image.info)
        info.pop("path", None)
        if path := self._copies.fetched(series):
            info["path"] = str(path)
        return info

    # --- files -----------------------------------------------------------------------------------------------

    @override
    def get_image_uri(self, image_id: str) -> str:
        """The image as NIfTI, fetched if it was not.

        Raises:
            PacsError: if there is no such image, or the PACS does not hand it over.
            FewshotError: if it is no volume.
        """
        series = self._series(image_id)
        with self._failed.noted(image_id):
            return str(self._copies.image(series))

    @override
    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The label of an image on its grid, "" if there is none; a SEG that cannot be used gives way to an older.

        Args:
            label_id: the image's id.
            label_tag: final, original, or that of a label which is kept here.
            image_id: of no account.

        Raises:
            PacsError: if the PACS does not hand it over.
            UnreadableSegError: if there is none that can be used.
        """
        failure: UnreadableSegError | None = None
        while label := self._datastore.label(label_id, label_tag):
            series = label.info.get(SERIES)
            if not series:
                return str(self._records.label_file(label_id, label_tag, label.ext))
            try:
                return str(self._fetch_label(*self._seg(label_id, series)))
            except UnreadableSegError as error:
                failure = error
        if failure:
            raise failure
        return ""

    def _seg(self, image_id: str, series: str) -> tuple[Seg, Series]:
        """A SEG series that counts for an image, and the image.

        Raises:
            PacsError: if it does not count any more.
        """
        contents = self._watch.contents
        image = contents.images.get(image_id)
        segs = (kind.get(image_id) for kind in (contents.persons, contents.models))
        seg = next((seg for seg in segs if seg and seg.series == series), None)
        if image is None or seg is None:
            raise _replaced(image_id, series)
        return seg, image

    def _fetch_label(self, seg: Seg, image: Series) -> Path:
        """The very SEG, as a label map on the grid of the very image.

        Raises:
            PacsError: if it does not count any more, or the PACS does not hand it over.
            UnreadableSegError: if it cannot be used; it does not count from now on.
        """
        counting, as_now = self._seg(image.uid, seg.series)
        if counting != seg or as_now.key != image.key:
            raise _replaced(image.uid, seg.series)
        try:
            return self._copies.label(seg, image)
        except UnreadableSegError as error:
            self._watch.leave_out(seg, image, str(error))
            raise

    def label_source(
        self, image_id: str
    ) -> tuple[Mapping[str, Any], tuple[Any, ...], Callable[[], Path]] | None:
        """The person's label of an image that counts: its info, what changes when another does, how to get its file.

        All three are of one SEG at one moment, so that its names never go with the voxels of another; nothing is
        fetched yet. None if there is no label.
        """
        contents = self._watch.contents
        image, seg = contents.images.get(image_id), contents.persons.get(image_id)
        if image is None or seg is None:
            return None
        stamp = (*seg.key, seg.instance, image.instances)
        return seg_info(seg, image), stamp, partial(self._fetch_label, seg, image)

    @override
    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Files of all images with a person's label, all fetched; what cannot be had is left out."""
        pairs = []
        for image in self.get_labeled_images():
            try:
                pairs.append({"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)})
            except FewshotError as error:
                logger.warning("%s is left out: %s", image, error)
        if not full_path:
            root = Path(self._datastore_path).resolve()
            pairs = [{key: str(Path(path).relative_to(root)) for key, path in pair.items()} for pair in pairs]
        return pairs

    def _series(self, image_id: str) -> Series:
        """An image; one that is too new to be known is asked for."""
        if image_id not in self._watch.contents.images:
            self.refresh()
        series = self._watch.contents.images.get(image_id)
        if series is None:
            raise PacsError(f"There is no image {image_id} in the PACS {self.url}.", status=GONE)
        return series

    @override
    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Nothing to read: what the PACS has is asked for, not remembered."""

    @override
    def _update_datastore_file(self, lock: bool = True) -> None:
        """Nothing to write."""


def _replaced(image_id: str, series: str) -> PacsError:
    return PacsError(f"The SEG series {series} of the image {image_id} was deleted or replaced.", status=GONE)
