"""Fills the feature bank in the background, so that training and inference after a submit start at once."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

from fewshot.errors import FewshotError
from lib.project import Project
from lib.templates import read_image

logger = logging.getLogger(__name__)


class Warmer:
    """One daemon thread that computes features of one image after the other.

    Args:
        project: whose images and engine.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._queue: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="warm features", daemon=True)
        self._started = threading.Lock()

    def warm(self, image_id: str) -> None:
        """Compute an image's features soon."""
        self._queue.put(image_id)
        with self._started:
            if not self._thread.is_alive():
                self._thread.start()

    def _run(self) -> None:
        while True:
            image_id = self._queue.get()
            try:
                self._features(image_id)
            except FewshotError as error:
                logger.error("The features of %s were not computed in advance: %s", image_id, error)
            except Exception:  # the thread must outlive whatever one image does to it
                logger.exception("The features of %s were not computed in advance", image_id)

    def _features(self, image_id: str) -> None:
        store, description = self._project.datastore, self._project.description
        # The slicing follows all templates, so theirs are the images that decide how this one is cut.
        others = [entry.image_id for entry in self._project.submissions() if entry.image_id != image_id]
        volume = read_image(Path(store.get_image_uri(image_id)), description)
        volumes = [volume, *(read_image(Path(store.get_image_uri(other)), description) for other in others)]
        self._project.engine.warm(volume, volumes)
        logger.info("The features of %s are in the bank", image_id)
