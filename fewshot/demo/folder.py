"""The one folder that a demo writes to."""

from __future__ import annotations

import shutil
from pathlib import Path

from fewshot.dataset import Dataset
from fewshot.errors import FewshotError
from fewshot.phantoms import write_studies

PARTS = ("truth", "studies", "template", "server", "found", "pictures")
MARK = ".fewshot-demo"
"""Says that a folder was made by a demo, so that a later one may replace what is in it."""


class DemoFolder:
    """Where everything lies that a demo and its server write.

    ```
    truth/          the made-up data set: images, labels, dataset.json
    studies/        copies of the images alone, which the server serves; it adds submitted labels
    template/       the label map that the annotator submitted
    server/         the server's log, feature bank and adapters
    found/ADAPTER/  label maps as the server answered them
    pictures/       one overlay per study
    results.json    the numbers
    ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.truth, self.studies, self.template, self.server, self.found, self.pictures = (
            self.path / part for part in PARTS
        )
        self.log = self.server / "server.log"
        self.results = self.path / "results.json"

    def prepare(self) -> None:
        """Make the folder, or empty it of an earlier demo.

        Raises:
            FewshotError: it holds something that no demo has made.
        """
        foreign = self.path.is_dir() and any(self.path.iterdir()) and not (self.path / MARK).exists()
        if foreign or (self.path.exists() and not self.path.is_dir()):
            raise FewshotError(
                f"{self.path} holds something that no demo has made: give another, empty folder."
            )
        for part in PARTS:
            shutil.rmtree(self.path / part, ignore_errors=True)
        self.results.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / MARK).touch()

    def make_studies(self, count: int, *, seed: int) -> Dataset:
        """Make up studies; the server gets the images alone, the truth stays out of its reach."""
        write_studies(self.truth, count, seed)
        shutil.copytree(self.truth / "images", self.studies)
        return Dataset.open(self.truth)
