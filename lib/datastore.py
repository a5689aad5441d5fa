"""The studies folder: MONAI Label's local datastore, which checks a label before it replaces another one."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from typing_extensions import override

from fewshot.errors import FewshotError
from lib.files import stamp, write_json
from lib.landmarks.results import drop_beside
from lib.requested import require_image_id, require_tag, tellable

logger = logging.getLogger(__name__)

READABLE = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg")

Check = Callable[[Path, Path, dict[str, Any], str], None]
"""Called with image, label file, the submission's parameters and the image's id; raises to refuse."""

Stored = Callable[[Path, Path, dict[str, Any], str], None]
"""Called with the same of a label that was stored."""

Vanished = Callable[[Collection[str]], None]
"""Called with the images that remain when others are gone."""


class StudiesFolder(LocalDatastore):
    """Images and labels in one folder, shared by the server and its background processes.

    Beyond `LocalDatastore`: a final label is checked before anything is overwritten; label files and the
    datastore's own JSON are replaced in one step; and every change starts from what is on disk, so that
    the server and a batch inference do not write over each other's entries.

    Args:
        folder: the studies.
        extensions: patterns such as `*.nii.gz`; those that cannot be read are left out.
        check: refuses a label that must not be saved.
        stored: is told of a label that was saved, before anybody can save another one; files that it writes beside the
            label go when the label does.
        vanished: is told when images are gone.
        auto_reload: watch the folder.
        read_only: change nothing when opening it.
    """

    def __init__(
        self,
        folder: str,
        *,
        extensions: list[str],
        check: Check,
        stored: Stored | None = None,
        vanished: Vanished | None = None,
        auto_reload: bool,
        read_only: bool,
    ) -> None:
        self._check = check
        self._stored, self._vanished = stored, vanished
        self._mutex = threading.RLock()
        self._file_lock = FileLock(Path(folder) / ".lock")
        self._config_ts: object = None
        super().__init__(
            folder,
            extensions=[pattern for pattern in extensions if pattern.lower().endswith(READABLE)],
            auto_reload=auto_reload,
            read_only=read_only,
        )
        if auto_reload:
            self._handler.on_moved = self._on_moved_event  # a file renamed into place is not "created"

    @override
    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None
    ) -> str:
        """Save a label; a final one only after it was checked.

        Raises:
            HTTPException: 404 for an unknown image, 422 for a label that cannot be one; nothing is changed.
        """
        require_tag(label_tag)
        source, info = Path(label_filename), dict(label_info or {})
        image = self.get_image_uri(image_id)
        if not image:
            raise HTTPException(404, f"There is no image {image_id} in these studies.")
        if label_tag == DefaultLabelTag.FINAL.value:
            self._check(Path(image), source, info, image_id)
        _, extension = self._to_id(source.name)
        folder = Path(self._datastore.label_path(label_tag))
        target = folder / f"{image_id}{extension}"
        folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            with (
                tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as beside,
                self._change() as objects,
            ):
                copy = Path(shutil.copy(source, beside))
                if image_id not in objects:
                    raise HTTPException(404, f"Image {image_id} was removed while its label was being saved.")
                before = objects[image_id].labels.get(label_tag)
                os.replace(copy, target)
                info.update(ts=int(time.time()), name=target.name)
                objects[image_id].labels[label_tag] = DataModel(info=info, ext=extension)
                if before is not None and before.ext != extension:
                    (folder / f"{image_id}{before.ext}").unlink(missing_ok=True)
            logger.info("Saved the label of %s with tag %s", image_id, label_tag)
            if self._stored:
                self._stored(Path(image), target, info, image_id)
        return image_id

    @override
    def remove_label(self, label_id: str, label_tag: str) -> None:
        with self._locked():
            if file := self.get_label_uri(label_id, label_tag):
                drop_beside(Path(file), label_id)
            super().remove_label(label_id, label_tag)

    @override
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image, or replace one of that id; its labels stay.

        Raises:
            HTTPException: 422 for an id or a kind of file that cannot be one, 409 if the submitted label of an image
                does not fit the new one; nothing is changed.
        """
        source = Path(image_filename)
        name, extension = self._to_id(source.name)
        image_id = image_id or name
        require_image_id(image_id)
        if extension.lower() not in READABLE:
            raise HTTPException(422, f"{source.name} is no image here: send one of {', '.join(READABLE)}.")
        folder = Path(self._datastore.image_path())
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=folder) as beside, self._change() as objects:
            copy = Path(shutil.copy(source, beside))
            before = objects.get(image_id)
            labels = before.labels if before else {}
            if DefaultLabelTag.FINAL.value in labels:
                self._require_fit(image_id, copy)
            target = folder / f"{image_id}{extension}"
            os.replace(copy, target)
            info = {**(image_info or {}), "ts": int(time.time()), "name": target.name}
            objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=extension), labels=labels)
        logger.info("Added the image %s", image_id)
        return image_id

    def _require_fit(self, image_id: str, image: Path) -> None:
        """Refuse an image on which its submitted label cannot lie."""
        from fewshot.volumes import read_labels, read_volume

        label = Path(self.get_label_uri(image_id, DefaultLabelTag.FINAL.value))
        try:
            read_labels(label, read_volume(image))
        except FewshotError as error:
            reason = str(error).replace(str(label), "its submitted label").replace(str(image), "the file")
            raise HTTPException(
                409,
                f"The image {image_id} was not replaced, because its submitted label does not fit the new one: "
                f"send it under another name, or delete the label first. The reason: {reason}",
            ) from error

    @override
    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        require_tag(label_tag)
        return str(super().get_label_uri(label_id, label_tag))

    @override
    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._change() as objects:
            if image_id not in objects:
                raise HTTPException(404, f"There is no image {image_id} in these studies.")
            objects[image_id].image.info.update(tellable(info))

    @override
    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._change() as objects:
            if label_id not in objects or label_tag not in objects[label_id].labels:
                raise HTTPException(404, f"There is no label {label_id} with tag {label_tag}.")
            objects[label_id].labels[label_tag].info.update(tellable(info))

    def _on_moved_event(self, event: Any) -> None:
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
        else:
            self._on_any_event(event)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other thread and no other process changes the datastore."""
        with self._mutex, self._file_lock:
            yield

    @contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """The objects as they are on disk, to be changed and then written back."""
        with self._locked():
            self._init_from_datastore_file()
            yield self._datastore.objects
            self._update_datastore_file()

    @override
    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._locked():
            file = Path(self._datastore_config_path)
            seen = stamp(file)
            if seen == self._config_ts or not file.exists():
                return
            try:
                content = LocalDatastoreModel.model_validate_json(file.read_text(encoding="utf-8"))
            except ValueError as error:
                if throw_exception:
                    raise FewshotError(
                        f"{file} cannot be read: repair it, or move it away; the names of submitted labels are in it."
                    ) from error
                logger.error("%s cannot be read, the last known state is kept: %s", file, error)
                return
            content.base_path = self._datastore_path
            self._datastore, self._config_ts = content, seen

    @override
    def _update_datastore_file(self, lock: bool = True) -> None:
        if lock:
            with self._locked():
                return self._update_datastore_file(lock=False)
        file = Path(self._datastore_config_path)
        write_json(file, self._datastore.model_dump(exclude={"base_path"}))
        self._config_ts = stamp(file)
        return None

    @override
    def _reconcile_datastore(self) -> None:
        with self._locked():
            super()._reconcile_datastore()

    @override
    def _remove_non_existing(self) -> int:
        """Forget what is gone, entry by entry: other threads read the dictionary meanwhile."""
        self._init_from_datastore_file()
        objects, gone = self._datastore.objects, 0
        images = Path(self._datastore.image_path())
        before = len(objects)
        for image_id, entry in list(objects.items()):
            for tag, label in list(entry.labels.items()):
                file = Path(self._datastore.label_path(tag)) / f"{image_id}{label.ext}"
                if not file.exists():
                    drop_beside(file, image_id)
                    del entry.labels[tag]
                    gone += 1
            if not (images / f"{image_id}{entry.image.ext}").exists():
                del objects[image_id]
                gone += 1
        if self._vanished and len(objects) < before:
            self._vanished(list(objects))
        return gone
