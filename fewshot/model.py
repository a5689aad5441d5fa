"""The model file: a fitted adapter with everything that a prediction needs, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewshot import __version__
from fewshot.adapters import ADAPTERS, Adapter
from fewshot.atlas import Atlas
from fewshot.errors import FewshotError
from fewshot.features import Backbone
from fewshot.volumes import SliceSpec

FORMAT = "fewshot-adapter"
FORMAT_VERSION = 2
"""2: the default adapter's atlas. Files of version 1 hold adapters without one and are read."""
READABLE = (1, 2)

LANDMARKS = "fewshot-landmarks"
FORMATS = {FORMAT: "a segmentation adapter", LANDMARKS: "a landmark model"}
"""What the formats of model files hold, in words."""

HEADER_KEY = "fewshot"


def now() -> str:
    """UTC time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted adapter and the circumstances in which it may be used.

    Attributes:
        adapter: the fitted adapter; its class k is the k-th entry of ``labels``.
        labels: label name -> value in the label map, background not listed.
        spec: how volumes are cut into slices, resolved from the templates.
        backbone: name of the backbone, to load it again.
        backbone_digest: of its weights and layers; features of another backbone mean nothing to the adapter.
        layers: the backbone's blocks that were used.
        parts: for each label, of how many connected parts it consists in the templates.
        templates: case names.
        scores: what held-out template pixels say.
        atlas: the templates for registration, of adapters that look at place as well.
        created: UTC time, ISO 8601.
    """

    adapter: Adapter
    labels: dict[str, int]
    spec: SliceSpec
    backbone: str
    backbone_digest: str
    layers: list[int]
    parts: list[int]
    templates: list[str]
    scores: dict[str, float]
    atlas: Atlas | None = None
    created: str = field(default_factory=now)

    @property
    def header(self) -> dict[str, Any]:
        """All that is no tensor; plain JSON."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "made_by": f"fewshot {__version__}",
            "adapter": self.adapter.name,
            "config": self.adapter.config(),
            "labels": self.labels,
            "spec": self.spec.to_dict(),
            "backbone": {"name": self.backbone, "digest": self.backbone_digest, "layers": self.layers},
            "parts": self.parts,
            "templates": self.templates,
            "scores": self.scores,
            "created": self.created,
            "atlas": self.atlas.config() if self.atlas else None,
        }

    @property
    def state(self) -> dict[str, Tensor]:
        """All tensors."""
        state = {name: value.contiguous() for name, value in self.adapter.state_dict().items()}
        return state | (self.atlas.tensors() if self.atlas else {})

    @cached_property
    def content(self) -> bytes:
        """The bytes of the model file."""
        return safetensors.torch.save(self.state, {HEADER_KEY: json.dumps(self.header)})

    @property
    def digest(self) -> str:
        """Identifies the file's content; 16 hexadecimal digits."""
        return hashlib.blake2b(self.content, digest_size=8).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the file beside and rename it into place, so that a reader never sees half of it."""
        write_file(Path(path), self.content)

    def require(self, backbone: Backbone) -> None:
        """Refuse a backbone whose features this adapter was not fitted on.

        Raises:
            FewshotError: if weights or layers differ.
        """
        if (backbone.digest, backbone.layers) != (self.backbone_digest, self.layers):
            raise FewshotError(
                f"This adapter was fitted on features of backbone {self.backbone} ({self.backbone_digest}, layers "
                f"{self.layers}), but {backbone.name} ({backbone.digest}, layers {backbone.layers}) is in use; "
                "load that backbone or fit the adapter again."
            )


def write_file(path: Path, content: bytes) -> None:
    """Write a file beside and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path: Path | str) -> Model:
    """Read a model file.

    Raises:
        FewshotError: if it is missing, damaged, of another format or of a newer version.
    """
    path = Path(path)
    header, state = read_file(path, FORMAT, READABLE)
    if header.get("adapter") not in ADAPTERS:
        raise FewshotError(
            f"Model file {path} holds adapter '{header.get('adapter')}'; known are {', '.join(ADAPTERS)}."
        )
    with as_said(path):
        return model_of(header, state)


def read_file(path: Path, wanted: str, readable: Sequence[int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a model file of any format of ours.

    Args:
        path: the file.
        wanted: its format.
        readable: versions of the format that this program reads.

    Raises:
        FewshotError: if it is missing, damaged, of another format or of a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FewshotError(f"There is no model file {path}; fit one with `fewshot fit`.") from None
    except PermissionError:
        raise FewshotError(f"Model file {path} may not be read; check its rights.") from None
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise FewshotError(f"Model file {path} is damaged ({error}); fit it again.") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != wanted and found in FORMATS:
        raise FewshotError(f"{path} holds {FORMATS[found]}, not {FORMATS[wanted]}; give the other file.")
    if found != wanted:
        raise FewshotError(f"{path} is not a fewshot adapter file; give a file that `fewshot fit` wrote.")
    if header.get("version") not in readable:
        raise FewshotError(
            f"Model file {path} has format version {header.get('version')}, this program reads up to {readable[-1]}; "
            "fit the adapter again, or use the fewshot that wrote it."
        )
    return header, state


@contextmanager
def as_said(path: Path) -> Iterator[None]:
    """Tell that a file does not hold what its header says, whatever fails on it."""
    try:
        yield
    except (FewshotError, KeyError, TypeError, AttributeError, ValueError, zlib.error) as error:
        raise FewshotError(
            f"Model file {path} does not hold what its header says ({error}); fit it again."
        ) from error


def model_of(header: dict[str, Any], state: dict[str, Tensor]) -> Model:
    """The model that `Model.header` and `Model.state` describe."""
    of_atlas = {name: value for name, value in state.items() if name.startswith("atlas.")}
    of_adapter = {name: value for name, value in state.items() if name not in of_atlas}
    return Model(
        adapter=ADAPTERS[header["adapter"]].from_config(header["config"], of_adapter),
        labels=header["labels"],
        spec=SliceSpec.from_dict(header["spec"]),
        backbone=header["backbone"]["name"],
        backbone_digest=header["backbone"]["digest"],
        layers=header["backbone"]["layers"],
        parts=header["parts"],
        templates=header["templates"],
        scores=header["scores"],
        atlas=Atlas.from_tensors(header["atlas"], of_atlas) if header.get("atlas") else None,
        created=header["created"],
    )
