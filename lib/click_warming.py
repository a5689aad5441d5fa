"""Gets ready for clicks: reads the image that an annotator opened, and computes what its next clicks need."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.errors import FewshotError
from lib.project import Project

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""So long slices are computed in advance: all that matter on a GPU, a few on a CPU, which has other things to do."""


@dataclass(frozen=True)
class _Wish:
    image: Path
    slices: Sequence[int] | None = None


class ClickWarmer:
    """One daemon thread that works for the image that was opened or clicked in last, and forgets those before.

    MONAI Label is not told when an image is opened; that it was chosen as the next sample, downloaded or uploaded for
    a session is the sign. The middle slice is computed first, after a click its neighbours, then those beyond.

    Args:
        project: whose images and engine.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._changed = threading.Condition()
        self._wish: _Wish | None = None
        self._thread: threading.Thread | None = None

    def open(self, image: Path) -> None:
        """An image was handed to an annotator."""
        self._want(_Wish(image))

    def near(self, image: Path, slices: Sequence[int]) -> None:
        """Slices of an image were clicked: the next click will be on one beside them."""
        self._want(_Wish(image, slices))

    def _want(self, wish: _Wish) -> None:
        with self._changed:
            self._wish = wish
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="warm clicks", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wish is None:
                    self._changed.wait()
                wish, self._wish = self._wish, None
            try:
                self._fulfil(wish)
            except FewshotError as error:
                logger.warning("Clicks in %s were not prepared: %s", wish.image, error)
            except Exception:
                # whatever it was, the thread must live for the next image; the log has it whole
                logger.exception("Clicks in %s were not prepared", wish.image)

    def _fulfil(self, wish: _Wish) -> None:
        volume = self._project.images.read(wish.image)
        spec, engine = self._project.slicing.of(volume), self._project.engine
        depth, computed, start = volume.shape[2], 0, time.monotonic()
        for index in outwards(wish.slices or [depth // 2], depth):
            late = time.monotonic() - start > SECONDS or not engine.has_room()
            if self._wish is not None or (computed and late):
                break
            computed += engine.warm_clicks(volume, spec, [index])
        logger.info("%s is ready for clicks: %d slices computed in advance", wish.image.name, computed)


def outwards(slices: Sequence[int], depth: int) -> Iterator[int]:
    """All of `depth` slices, those nearest to the given ones first."""
    nearest = sorted((min(abs(index - given) for given in slices), index) for index in range(depth))
    return (index for _, index in nearest)
