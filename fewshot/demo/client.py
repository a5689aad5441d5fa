"""The calls that a viewer makes to MONAI Label, in the form that 3D Slicer makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import requests

from fewshot.errors import FewshotError

CLIENT_ID = "fewshot-demo"
POLL_SECONDS = 0.5
TRAIN_SECONDS = 600.0


@dataclass(frozen=True)
class Training:
    """How far a training has come; epochs and held-out accuracy are 0 until the server knows them."""

    status: str
    epoch: int
    epochs: int
    accuracy: float
    log: tuple[str, ...]


class Client:
    """One viewer's connection to a server.

    Args:
        url: the server, such as ``http://127.0.0.1:8000``.
        seconds: how long a single answer may take.
    """

    def __init__(self, url: str, *, seconds: float = 300.0) -> None:
        self.url = url.rstrip("/")
        self.seconds = seconds
        self._session = requests.Session()

    def info(self) -> dict[str, Any]:
        """What the server offers: models, trainers, strategies, labels, train_stats."""
        return self._json("GET", "/info/")

    def next_sample(self, strategy: str) -> str:
        """The image that the server wants labelled next.

        Raises:
            FewshotError: the server has no image left to label.
        """
        answer = self._json("POST", f"/activelearning/{strategy}", json={"client_id": CLIENT_ID})
        if not answer.get("id"):
            raise FewshotError("The server has no unlabelled image left.")
        return str(answer["id"])

    def download(self, image: str, path: Path) -> Path:
        """Save an image of the server's, as a viewer loads it; returns `path`."""
        answer = self._request("GET", "/datastore/image", params={"image": image})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(answer.content)
        return path

    def submit_label(self, image: str, label: Path, names: list[str]) -> dict[str, Any]:
        """Send a label map whose values 1, 2, ... stand for `names` in this order, as Slicer does."""
        label_info = [{"name": name, "idx": number} for number, name in enumerate(names, start=1)]
        params = json.dumps({"label_info": label_info, "client_id": CLIENT_ID})
        with label.open("rb") as file:
            files = {"label": (label.name, file, "application/octet-stream")}
            return self._json(
                "PUT", "/datastore/label", params={"image": image}, files=files, data={"params": params}
            )

    def train(self, model: str, *, watch: Callable[[Training], None]) -> Training:
        """Train a model and wait until it is done.

        Args:
            model: the trainer's name in ``/info/``.
            watch: called with the state of the training about twice a second.

        Raises:
            FewshotError: the training failed, with the last lines that it wrote.

        Returns:
            The state at the end.
        """
        start = monotonic()
        self._json("POST", f"/train/{model}", json={"client_id": CLIENT_ID})
        while monotonic() - start < TRAIN_SECONDS:
            training = self.training(model)
            watch(training)
            if training.status == "DONE":
                return training
            if training.status in ("ERROR", "STOPPED"):
                raise FewshotError(
                    "\n".join([f"Training of {model} ended with {training.status}.", *training.log])
                )
            sleep(POLL_SECONDS)
        raise FewshotError(f"Training of {model} took longer than {TRAIN_SECONDS:.0f} s.")

    def training(self, model: str) -> Training:
        """State of the current or last training."""
        task = self._json("GET", "/train/")
        stats = self.info().get("train_stats", {}).get(model, {})
        return Training(
            status=str(task.get("status", "")),
            epoch=int(stats.get("epoch") or 0),
            epochs=int(stats.get("total_epochs") or 0),
            accuracy=float(stats.get("best_metric") or 0),
            log=tuple(str(line).rstrip() for line in task.get("details", [])[-8:]),
        )

    def infer(self, model: str, image: str, result: Path) -> dict[str, Any]:
        """Segment an image of the server's.

        Args:
            model: the model's name in ``/info/``.
            image: the image's id.
            result: where the label map is written, .nrrd.

        Returns:
            What the server says about the result.
        """
        from requests_toolbelt import MultipartDecoder  # type: ignore[import-untyped] # MONAI Label's

        params = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": CLIENT_ID}
        answer = self._request(
            "POST", f"/infer/{model}", params={"image": image}, data={"params": json.dumps(params)}
        )
        if not answer.headers.get("content-type", "").startswith("multipart/"):
            raise FewshotError(f"The server answered for {image} without a label map: {answer.text[:300]}")
        said: dict[str, Any] = {}
        for part in MultipartDecoder.from_response(answer).parts:
            if b'name="params"' in part.headers[b"Content-Disposition"]:
                said = json.loads(part.content)
            else:
                result.parent.mkdir(parents=True, exist_ok=True)
                result.write_bytes(part.content)
        return said

    def landmarks(self, image: str, path: Path) -> Path:
        """Save the landmarks that the server has found in an image, as Slicer's markups; returns `path`."""
        answer = self._request("GET", f"/landmarks/{quote(image)}", params={"format": "mrk"})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(answer.content)
        return path

    def store_landmarks(self, image: str) -> str:
        """Have the landmarks of an image stored in the PACS as a report (SR); returns the UID of its series."""
        return str(self._json("POST", f"/landmarks/{quote(image)}/sr")["series"])

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer = self._request(method, path, **request).json()
        return dict(answer) if isinstance(answer, Mapping) else {}

    def _request(self, method: str, path: str, **request: Any) -> requests.Response:
        try:
            answer = self._session.request(method, self.url + path, timeout=self.seconds, **request)
        except requests.RequestException as error:
            raise FewshotError(f"The server at {self.url} did not answer {method} {path}: {error}") from error
        if not answer.ok:
            raise FewshotError(
                f"The server refused {method} {path} ({answer.status_code}): {_sentence(answer)}"
            )
        return answer


def _sentence(answer: requests.Response) -> str:
    """What the server says about an error: the detail of a FastAPI error, else the text."""
    try:
        detail = answer.json().get("detail")
    except (ValueError, AttributeError):
        detail = None
    return str(detail or answer.text[:300] or answer.reason)
