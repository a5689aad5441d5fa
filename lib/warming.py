"""Fills the feature bank in the background, so that training and inference after a submit start at once."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fewshot.errors import FewshotError
from lib.files import read_json, write_json
from lib.project import Project

if TYPE_CHECKING:
    from fewshot.volumes import Volume

logger = logging.getLogger(__name__)

SOON, LATER = 0, 1
LOOK_SECONDS = 3.0
"""How often the server looks whether a training, which is another process, has published a backbone."""


@dataclass(order=True)
class _Wish:
    """An image whose features are wanted; those of a submitted image go before those of a new backbone."""

    urgency: int
    number: int
    image_id: str = field(compare=False)
    backbone: str | None = field(compare=False, default=None)


class Warmer:
    """One daemon thread that computes features of one image after the other.

    Where a training has published another backbone, it makes the features of all studies anew, in its spare time,
    and drops those of the backbone before. How far it is stands in the workspace's `bank.json`.

    Args:
        project: whose images and engine.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._queue: queue.PriorityQueue[_Wish] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="warm features", daemon=True)
        self._started = threading.Lock()
        self._following = False
        self._report: dict[str, Any] = {}

    def warm(self, image_id: str) -> None:
        """Compute an image's features soon."""
        self._wish(SOON, image_id)
        self._start()

    def follow(self) -> None:
        """From now on make features anew whenever a training publishes a backbone, and finish what was begun."""
        self._following = True
        self._start()

    def _start(self) -> None:
        with self._started:
            if not self._thread.is_alive():
                self._thread.start()

    def _wish(self, urgency: int, image_id: str, backbone: str | None = None) -> None:
        self._queue.put(_Wish(urgency, next(self._numbers), image_id, backbone))

    def _run(self) -> None:
        while True:
            wish = None
            with suppress(queue.Empty):
                wish = self._queue.get(timeout=LOOK_SECONDS)
            if self._following:
                self._protected("Features of a new backbone", self._look)
            if wish is None:
                continue
            if wish.backbone is None:
                self._protected(f"The features of {wish.image_id}", self._features, wish.image_id)
            elif wish.backbone == self._report["backbone"]:
                self._protected("Features of a new backbone", self._renew, wish.image_id)

    def _protected(self, what: str, work: Callable[..., None], *arguments: str) -> str | None:
        """Do something that must not end the thread; returns why it failed, None if it did not."""
        try:
            work(*arguments)
        except FewshotError as error:
            logger.error("%s were not computed in advance: %s", what, error)
            return str(error)
        except Exception as error:
            logger.exception("%s were not computed in advance", what)
            return f"{type(error).__name__}: {error}"
        return None

    def _features(self, image_id: str) -> None:
        volume = self._read(image_id)
        self._project.engine.warm(volume, self._project.slicing.of(volume))
        logger.info("The features of %s are in the bank", image_id)

    def _look(self) -> None:
        """Begin to make features anew if the backbone in use is one that a training has published."""
        workspace = self._project.workspace
        before, now = workspace.backbone_before(), workspace.backbone_now()
        if before is None or self._report.get("backbone") == now:
            return
        with suppress(FileNotFoundError):
            told = read_json(workspace.bank)
            if told["backbone"] == now and told["done"] >= told["total"]:
                self._report = told
                return
        images = [image for image in self._project.datastore.list_images() if self._at_hand(image)]
        self._report = {"backbone": now, "before": before, "done": 0, "total": len(images), "failed": {}}
        write_json(workspace.bank, self._report)
        logger.info("Features of %d studies are made with the backbone %s", len(images), now)
        for image_id in images:
            self._wish(LATER, image_id, now)

    def _renew(self, image_id: str) -> None:
        if reason := self._protected(f"The features of {image_id}", self._replace, image_id):
            self._report["failed"][image_id] = reason
        self._report["done"] += 1
        write_json(self._project.workspace.bank, self._report)

    def _replace(self, image_id: str) -> None:
        if not self._at_hand(image_id):
            return
        engine, slicing, before = self._project.engine, self._project.slicing, self._report["before"]
        volume, found = self._read(image_id, keep=False), False
        with suppress(FewshotError):  # the backbone before may be gone: its features are left to eviction
            found = engine.forget(volume, slicing.of(volume, before), backbone=before)
        if found or engine.has_room():
            engine.warm(volume, slicing.of(volume))

    def _at_hand(self, image_id: str) -> bool:
        """Whether an image need not be fetched first: nobody asked for all that is in a PACS."""
        return "path" in self._project.datastore.get_image_info(image_id)

    def _read(self, image_id: str, *, keep: bool = True) -> Volume:
        return self._project.images.read(self._project.path(image_id), keep=keep)
