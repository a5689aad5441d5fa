"""The person at the viewer, played by a program that knows the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from time import perf_counter
from typing import ClassVar

import numpy as np

from fewshot.dataset import Case, Dataset
from fewshot.demo.client import Client, Training
from fewshot.demo.folder import DemoFolder
from fewshot.demo.landmarks import Landmarks
from fewshot.demo.results import Row
from fewshot.demo.templates import as_known, as_submitted, partial_template, with_dots
from fewshot.errors import FewshotError
from fewshot.evaluation.metrics import LabelScores, label_scores
from fewshot.pictures import overlay
from fewshot.volumes import Volume, read_labels, read_volume, write_labels

Show = Callable[[int, int], None]
"""Called with what is done and the total, 0 where that is not known."""


class Annotator:
    """Labels the next sample, trains, and looks at what the server finds in the other studies.

    Args:
        client: connection to the server.
        truth: the studies with their whole labels and their landmarks.
        place: where files go.
        images: each study's name -> the server's id of its image.

    Attributes:
        landmarks: the studies' landmarks, and what the server says of them.
    """

    MODELS: ClassVar[dict[str, str]] = {
        "fewshot_basic": "basic",
        "fewshot_classification": "classification",
        "fewshot_contrastive": "contrastive",
        "fewshot": "auto",
    }
    """The app's models and the adapters behind them, the one to be drawn last."""

    TRAINED: ClassVar[tuple[str, ...]] = ("fewshot", "fewshot_contrastive", "fewshot_classification")
    """The basic adapter compares with the template's features and has nothing to train."""

    def __init__(self, client: Client, truth: Dataset, place: DemoFolder, images: Mapping[str, str]) -> None:
        self.client = client
        self.truth = truth
        self.place = place
        self.images = images
        self.landmarks = Landmarks(client, truth, place, images)

    def label_next_sample(self, slices: int) -> tuple[str, list[int]]:
        """Label a few slices of the image that the server wants labelled next, mark its landmarks, and submit all.

        A landmark is a dot, a segment of its own in the same label map. All is drawn on the grid of the image as the
        server sends it.

        Raises:
            FewshotError: the server asks for an image that is none of the studies.

        Returns:
            The study's name, and the slices with organs.
        """
        image = self.client.next_sample("first")
        name = self._name(image)
        volume = read_volume(self.client.download(image, self.place.template / f"{name}_image.nii.gz"))
        case = self.truth.cases[name]
        labels = self.truth.label_map(case, volume)
        partial, drawn = partial_template(labels, self.truth.labels, slices=slices)
        sent, names = as_submitted(partial, self.truth.labels)
        sent, names = with_dots(sent, names, self.landmarks.truth(case, volume), volume.affine)
        path = self.place.template / f"{name}.nii.gz"
        write_labels(path, sent, volume)
        self.client.submit_label(image, path, names)
        return name, drawn

    def train(self, model: str, show: Show) -> Training:
        """Press Train and wait."""
        return self.client.train(model, watch=lambda training: show(training.epoch, training.epochs))

    def predict_others(self, template: str, show: Show) -> list[Row]:
        """Segment every study but the template with every model, score it, and draw the last model's result."""
        rows: list[Row] = []
        cases = [case for name, case in self.truth.cases.items() if name != template]
        for number, case in enumerate(cases):
            show(number, len(cases))
            volume = self.truth.volume(case)
            expected = self.truth.label_map(case, volume)
            # The first request for a study computes its features; what is timed below is the adapters alone.
            first = self._predict("fewshot", case, volume)[1]
            for model, adapter in self.MODELS.items():
                found, seconds = self._predict(model, case, volume)
                scores = label_scores(expected, found, self.truth.labels, affine=volume.affine)
                rows += [
                    Row(case.name, adapter, label, each, seconds, first) for label, each in scores.items()
                ]
            self._draw(volume, found, expected, scores, adapter)
        return rows

    def _name(self, image: str) -> str:
        for name, served in self.images.items():
            if served == image:
                return name
        raise FewshotError(f"The server asks for {image}, which is none of the demo's studies.")

    def _predict(self, model: str, case: Case, volume: Volume) -> tuple[np.ndarray, float]:
        """A model's labels for a study, in our own values, and the seconds until the answer was there."""
        path = self.place.found / self.MODELS[model] / f"{case.name}.nrrd"
        clicked = perf_counter()
        said = self.client.infer(model, self.images[case.name], path)
        seconds = perf_counter() - clicked
        return as_known(read_labels(path, volume), said.get("label_names", {}), self.truth.labels), seconds

    def _draw(
        self,
        volume: Volume,
        found: np.ndarray,
        expected: np.ndarray,
        scores: dict[str, LabelScores],
        adapter: str,
    ) -> None:
        dice = {label: each.dice for label, each in scores.items()}
        mean = fmean(value for value in dice.values() if value is not None)
        overlay(
            volume,
            found,
            self.truth.labels,
            self.place.pictures / f"{volume.name}.png",
            truth=expected,
            scores=dice,
            title=f"{volume.name}, {adapter} adapter, one partly labelled template: mean Dice {mean:.2f}",
        )
