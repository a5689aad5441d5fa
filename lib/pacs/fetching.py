"""Copies of what is in a PACS: images as DICOM and as NIfTI, segmentations as label maps on their image's grid."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dicomweb_client import DICOMwebClient
from filelock import FileLock, Timeout

from fewshot.errors import FewshotError
from lib.files import write_json
from lib.pacs.catalog import Contents, Seg
from lib.pacs.client import get_file, iter_files
from lib.pacs.errors import GONE, NOT_DICOM, PacsError, told
from lib.pacs.listing import Key, Series, is_uid
from lib.pacs.seg_reading import read_seg

if TYPE_CHECKING:
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)

NIFTI = ".nii.gz"
NOTE = ".json"
"""`UID.nii.gz.json` says which state of the series a copy is, and what NIfTI cannot: its modality."""

SEGS = "segs"

FETCHING = ".fetching-"
"""`.fetching-UID/` is an image on its way; one is left where a process was killed."""


class UnreadableSegError(FewshotError):
    """A segmentation that cannot be used for the image that it names."""


class Copies:
    """The folder of copies, shared by the server and its background processes.

    ```
    UID/SOP.dcm         the series as it came
    UID.nii.gz          the same as one volume, UID.nii.gz.json beside it is written last
    segs/SEG-.../UID.nii.gz   a segmentation on the grid of the image UID
    ```

    Args:
        client: asks the PACS.
        folder: where the copies are.
    """

    def __init__(self, client: DICOMwebClient, folder: Path) -> None:
        self._client, self.folder = client, folder
        self._unreadable: dict[Key, str] = {}
        (folder / ".locks").mkdir(parents=True, exist_ok=True)

    def problem(self, series: Series) -> str | None:
        """Why an image cannot be read, None where nothing is known against it."""
        return self._unreadable.get(series.key)

    def dicom(self, series: Series) -> Path:
        """The folder of an image's DICOM files, once it was fetched."""
        return self.folder / series.uid

    def fetched(self, series: Series) -> Path | None:
        """The copy of an image as it is now, None if there is none."""
        file = self._file(series)
        whole = file.exists() and self.dicom(series).is_dir()
        return file if whole and note_of(file).get("instances") == series.instances else None

    def image(self, series: Series) -> Path:
        """The image as NIfTI; it is fetched once, by whoever comes first.

        Raises:
            PacsError: if the PACS does not hand it over.
            FewshotError: if it is no volume, such as one with missing slices.
        """
        if found := self.fetched(series):
            return found
        with self._alone(series.uid):
            if found := self.fetched(series):
                return found
            if problem := self.problem(series):
                raise FewshotError(problem)
            return self._fetch(series)

    def label(self, seg: Seg, image: Series) -> Path:
        """A segmentation as a label map on the grid of its image, value n = its n-th segment.

        Raises:
            PacsError, FewshotError: as for `image`.
            UnreadableSegError: if the segmentation cannot be used.
        """
        grid = self.image(image)
        folder = self.folder / SEGS / f"{seg.series}-{seg.key[1]}-{image.instances}"
        file = folder / f"{image.uid}{NIFTI}"
        if file.exists():
            return file
        with self._alone(seg.series):
            if not file.exists():
                self._convert(seg, grid, file)
        return file

    def forget(self, image: str) -> None:
        """Remove the copies of an image that is gone."""
        file = self.folder / f"{image}{NIFTI}"
        with suppress(Timeout), self._alone(image, seconds=0):  # who is fetching it will hear that it is gone
            Path(f"{file}{NOTE}").unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            shutil.rmtree(self.folder / image, ignore_errors=True)

    def forget_seg(self, series: str) -> None:
        """Remove the label maps of a SEG series that is gone."""
        for folder in (self.folder / SEGS).glob(f"{series}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_all_but(self, contents: Contents) -> None:
        """Remove the copies of everything else: what went while nobody asked the PACS, and what was never whole.

        With a search filter or modalities that leave out images which the PACS still has, their copies go too: they
        can be fetched again, and those of a patient that nobody asks for must not stay.
        """
        for path in self.folder.iterdir():
            uid = path.name.removesuffix(NOTE).removesuffix(NIFTI).removeprefix(FETCHING)
            if path.name.startswith(FETCHING):
                with suppress(Timeout), self._alone(uid, seconds=0):
                    shutil.rmtree(path, ignore_errors=True)
            elif is_uid(uid) and uid not in contents.images:
                self.forget(uid)
        for folder in (self.folder / SEGS).glob("*"):
            if folder.name.partition("-")[0] not in contents.listed:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self, uid: str, *, seconds: float = -1) -> Iterator[None]:
        with FileLock(self.folder / ".locks" / uid, timeout=seconds):
            yield

    def _file(self, series: Series) -> Path:
        return self.folder / f"{series.uid}{NIFTI}"

    def _fetch(self, series: Series) -> Path:
        from fewshot.volumes import read_volume

        file, folder = self._file(series), self.dicom(series)
        Path(f"{file}{NOTE}").unlink(missing_ok=True)
        place = self.folder / f"{FETCHING}{series.uid}"
        shutil.rmtree(place, ignore_errors=True)
        fresh = place / series.uid
        fresh.mkdir(parents=True)
        try:
            count = self._download(series, fresh)
            try:
                volume = read_volume(fresh)
            except FewshotError as error:
                sentence = str(error).replace(str(fresh), str(series))
                self._unreadable[series.key] = sentence[:1].upper() + sentence[1:]
                logger.warning("%s", self._unreadable[series.key])
                raise FewshotError(self._unreadable[series.key]) from error
            written = place / f"volume{NIFTI}"
            write_image(written, volume)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(fresh, folder)
            os.replace(written, file)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        write_json(
            Path(f"{file}{NOTE}"),
            {"instances": series.instances, "modality": volume.modality, "notes": volume.notes},
        )
        logger.info("Fetched %s: %d files", series, count)
        return file

    def _download(self, series: Series, folder: Path) -> int:
        """One file per instance; returns how many.

        Raises:
            PacsError: if the PACS sends none, or fewer than it lists.
        """
        count, url = 0, self._client.base_url
        with told(str(url), str(series)):
            for instance in iter_files(self._client, series.study, series.uid):
                uid = str(instance.SOPInstanceUID)
                instance.save_as(folder / f"{uid if is_uid(uid) else count}.dcm")
                count += 1
        if not count:
            raise PacsError(f"The PACS {url} has no file of {series}: was it deleted?", status=GONE)
        if count < series.instances:
            raise PacsError(
                f"The PACS {url} sent {count} of {series.instances} files of {series}: try again."
            )
        return count

    def _convert(self, seg: Seg, grid: Path, file: Path) -> None:
        from fewshot.volumes import read_volume, write_labels

        what = f"the SEG series {seg.series}"
        with told(str(self._client.base_url), what):
            dataset = get_file(self._client, seg.header.study, seg.series, seg.instance)
        volume = read_volume(grid)
        try:
            labels = read_seg(dataset, volume)
        except FewshotError as error:
            raise UnreadableSegError(str(error)) from error
        except NOT_DICOM as error:
            raise UnreadableSegError(f"{what} is damaged ({error}): store it again.") from error
        if not labels.any():
            raise UnreadableSegError(f"{what} is empty: draw at least one structure on one slice.")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_labels(file, labels, volume)


def write_image(path: Path, volume: Volume) -> None:
    """Write a volume as NIfTI without loss, as 16-bit integers where it has no others."""
    import nibabel as nib

    array, limits = volume.array, np.iinfo(np.int16)
    whole = array.min() >= limits.min and array.max() <= limits.max and (array == np.rint(array)).all()
    image = nib.Nifti1Image(array.astype(np.int16) if whole else array, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    if not np.allclose(image.get_qform(), volume.affine, atol=1e-3):
        image.set_qform(None)  # a quaternion cannot hold a sheared affine; the sform does
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def note_of(file: Path) -> dict[str, Any]:
    """What stands beside a copy; empty beside any other file."""
    try:
        note = json.loads(Path(f"{file}{NOTE}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
