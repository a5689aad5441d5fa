"""The one folder that a demo writes to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.phantoms import write_studies

PARTS = ("truth", "studies", "pacs", "template", "server", "found", "pictures")
MARK = ".fewshot-demo"
"""Says that a folder was made by a demo, so that a later one may replace what is in it."""

LOCK = ".fewshot-demo-runs"
"""Held while a demo runs, so that no other one takes the folder from under its servers."""


class DemoFolder:
    """Where everything lies that a demo and its server write.

    ```
    truth/          the made-up data set: images, labels, landmarks, dataset.json
    studies/        the images alone, which the server serves; it adds submitted labels. For a PACS: DICOM files
    pacs/           Orthanc's database, configuration and log
    template/       the image that the annotator got, and the label map submitted for it
    server/         the server's log, feature bank and adapters
    found/ADAPTER/  label maps as the server answered them
    found/landmarks/  NAME.mrk.json: the points that it found, as Slicer's markups; NAME.nrrd: balls
    pictures/       two for each study: NAME.png with organs, NAME.landmarks.png
    results.json    the numbers
    ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.truth, self.studies, self.pacs, self.template, self.server, self.found, self.pictures = (
            self.path / part for part in PARTS
        )
        self.log = self.server / "server.log"
        self.results = self.path / "results.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder, made if missing, from other demos for the block.

        Raises:
            FewshotError: it holds something that no demo has made, or another demo runs in it.
        """
        foreign = self.path.is_dir() and any(self.path.iterdir()) and not (self.path / MARK).exists()
        if foreign or (self.path.exists() and not self.path.is_dir()):
            raise FewshotError(
                f"{self.path} holds something that no demo has made: give another, empty folder."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / MARK).touch()
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise FewshotError(
                f"Another demo runs in {self.path}: end it first, or give another folder."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def empty(self) -> None:
        """Delete what an earlier demo wrote."""
        for part in PARTS:
            shutil.rmtree(self.path / part, ignore_errors=True)
        self.results.unlink(missing_ok=True)

    def make_studies(self, count: int, *, seed: int, copy: bool = True) -> Dataset:
        """Make up studies; the server gets the images alone, labels and landmarks stay out of its reach.

        Args:
            count: how many.
            seed: the first of them.
            copy: put the images into `studies`.
        """
        write_studies(self.truth, count, seed, landmarks=True)
        if copy:
            shutil.copytree(self.truth / "images", self.studies)
        return Dataset.open(self.truth)
