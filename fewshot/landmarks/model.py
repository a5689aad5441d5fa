"""The landmark model's file: an adapter for the landmarks' regions, and what the templates say of their arrangement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fewshot import __version__
from fewshot.features import Backbone
from fewshot.landmarks.texture import Textures
from fewshot.model import HEADER_KEY, LANDMARKS, Model, as_said, model_of, now, read_file, write_file

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Remembered:
    """What the default method keeps of one template, besides its images for registration.

    Attributes:
        points: mm along its voxel axes ``[N, 3]``, NaN for landmarks that it does not mark.
        textures: around those that it marks, in order.
    """

    points: np.ndarray
    textures: Textures


@dataclass(frozen=True, eq=False)
class LandmarkModel:
    """Everything that finding landmarks needs.

    Attributes:
        method: ``auto``, or the adapter whose components are the landmarks.
        regions: the adapter, fitted on boxes around the landmarks; its labels are the landmarks, numbered from 1.
        radius: mm, half the side of those boxes.
        remembered: of each template in order, for the default method; else empty.
        created: UTC time, ISO 8601.
    """

    method: str
    regions: Model
    radius: float
    remembered: Sequence[Remembered] = ()
    created: str = field(default_factory=now)

    @property
    def names(self) -> list[str]:
        """The landmarks, in order."""
        return list(self.regions.labels)

    @property
    def templates(self) -> list[str]:
        """Case names of the templates."""
        return self.regions.templates

    @property
    def scores(self) -> dict[str, float]:
        """What the templates say of the model."""
        return self.regions.scores

    @cached_property
    def content(self) -> bytes:
        """The bytes of the model file."""
        header = {
            "format": LANDMARKS,
            "version": FORMAT_VERSION,
            "made_by": f"fewshot {__version__}",
            "method": self.method,
            "radius": self.radius,
            "created": self.created,
            "regions": self.regions.header,
            "steps": [of.textures.step for of in self.remembered],
        }
        state = {f"regions.{name}": value for name, value in self.regions.state.items()}
        for number, of in enumerate(self.remembered):
            state[f"points.{number}"] = torch.from_numpy(of.points.astype(np.float64))
            state[f"textures.{number}"] = torch.from_numpy(of.textures.cubes)
        return safetensors.torch.save(state, {HEADER_KEY: json.dumps(header)})

    @property
    def digest(self) -> str:
        """Identifies the file's content; 16 hexadecimal digits."""
        return hashlib.blake2b(self.content, digest_size=8).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the file beside and rename it into place."""
        write_file(Path(path), self.content)

    def require(self, backbone: Backbone) -> None:
        """Refuse a backbone whose features the model was not fitted on.

        Raises:
            FewshotError: if weights or layers differ.
        """
        self.regions.require(backbone)


def load_landmark_model(path: Path | str) -> LandmarkModel:
    """Read a landmark model file.

    Raises:
        FewshotError: if it is missing, damaged, of another format or of a newer version.
    """
    path = Path(path)
    header, state = read_file(path, LANDMARKS, (FORMAT_VERSION,))
    with as_said(path):
        return _from_header(header, state)


def _from_header(header: dict[str, Any], state: dict[str, Tensor]) -> LandmarkModel:
    regions = {
        name.removeprefix("regions."): value for name, value in state.items() if name.startswith("regions.")
    }
    names = header["regions"]["labels"]
    remembered = [
        _remembered(state[f"points.{number}"].numpy(), state[f"textures.{number}"].numpy(), step, len(names))
        for number, step in enumerate(header["steps"])
    ]
    adapter = model_of(header["regions"], regions)
    if len(remembered) != (len(adapter.atlas.templates) if adapter.atlas else 0):
        raise ValueError("it registers other templates than it remembers")
    return LandmarkModel(
        method=header["method"],
        regions=adapter,
        radius=float(header["radius"]),
        remembered=remembered,
        created=header["created"],
    )


def _remembered(points: np.ndarray, cubes: np.ndarray, step: float, landmarks: int) -> Remembered:
    marked = int(np.isfinite(points).all(1).sum())
    if points.shape != (landmarks, 3) or cubes.ndim != 5 or cubes.shape[1] != marked or not step > 0:
        raise ValueError("a template's landmarks and textures do not belong together")
    return Remembered(points, Textures(cubes, float(step)))
