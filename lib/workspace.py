"""Where one set of studies keeps its label names, adapters and training statistics."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fewshot.errors import FewshotError
from lib.files import read_json, write_json

logger = logging.getLogger(__name__)

DEFAULT_BACKBONE = "embedded"
AUTO = "auto"
"""The engine's own word, repeated to import the engine only where it is needed."""


@dataclass(frozen=True)
class Workspace:
    """The folder of one set of studies; nothing in it is shared with other studies.

    ```
    labels.json                        label names and their values
    backbone.json                      the backbone whose features new adapters use
    backbones/VERSION.safetensors      backbones trained here, see `lib.trainers.runs`
    bank.json                          how far features of the present backbone are made, see `lib.warming`
    adapters/MODEL/VERSION.safetensors trained adapters, the last five of each model
    stats/MODEL.json                   how the last training went
    landmarks/MODEL/IMAGE.json         landmarks that a model found last in an image
    ```
    """

    folder: Path

    @classmethod
    def open(cls, app_dir: str | Path, studies: str, folder: str | None = None) -> Workspace:
        """The workspace of these studies, made if missing.

        Args:
            app_dir: the app's folder; workspaces lie in its model/.
            studies: folder or DICOMweb address.
            folder: another place, if wanted.

        Raises:
            FewshotError: if the folder cannot be made or written.
        """
        where = Path(folder).expanduser() if folder else Path(app_dir) / "model" / workspace_name(studies)
        where = where.resolve()
        try:
            where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewshotError(
                f"The workspace {where} cannot be made ({error.strerror}): give another one with "
                "--conf workspace FOLDER."
            ) from error
        if not os.access(where, os.W_OK):
            raise FewshotError(
                f"The workspace {where} is read-only: give another one with --conf workspace FOLDER."
            )
        return cls(where)

    @property
    def labels(self) -> Path:
        """The file of the label names."""
        return self.folder / "labels.json"

    @property
    def training_lock(self) -> Path:
        """Held by the one training process of this workspace."""
        return self.folder / "training.lock"

    @property
    def backbones(self) -> Path:
        """Folder of the backbones that were trained here."""
        return self.folder / "backbones"

    @property
    def bank(self) -> Path:
        """File that says how far features of the present backbone are made."""
        return self.folder / "bank.json"

    def trained_models(self) -> list[str]:
        """Models that have published an adapter."""
        return sorted({path.parent.name for path in self.folder.glob("adapters/*/[0-9]*.safetensors")})

    def adapters(self, model: str) -> Path:
        """Folder of a model's published adapters."""
        return self.folder / "adapters" / model

    def landmarks(self, model: str) -> Path:
        """Folder of the landmarks that a model found."""
        return self.folder / "landmarks" / model

    def found_landmarks(self) -> list[Path]:
        """Files of the landmarks that models found, by the names of their images."""
        return list(self.folder.glob("landmarks/*/*.json"))

    def stats(self, model: str) -> Path:
        """File of a model's training statistics."""
        return self.folder / "stats" / f"{model}.json"

    def backbone(self, asked: str | None) -> str:
        """The backbone to use: the one asked for, else the one that was used before, else the default.

        The choice is written down, because features of two backbones do not mix. So `auto` chooses once: later it
        means what was chosen then, whatever the network says meanwhile.

        Raises:
            FewshotError: if the record cannot be read.
        """
        record = self._record()
        before = self._place(record.get("backbone"))
        if asked == AUTO:
            asked = before or self._choose()
        if before and asked == record.get("trained_from"):
            asked = before  # the server was started with the same words before a training went on from there
        chosen = asked or before or DEFAULT_BACKBONE
        if before and chosen != before:
            logger.warning(
                "This workspace used the backbone %s and now uses %s: its adapters keep the old one until they are "
                "trained again.",
                before,
                chosen,
            )
        if chosen != before:
            write_json(self._backbone, {"backbone": chosen})
        return chosen

    def backbone_now(self) -> str:
        """The backbone in use: a training may have published another one since the server started."""
        return self._place(self._record().get("backbone")) or DEFAULT_BACKBONE

    def backbone_before(self) -> str | None:
        """The backbone that a training has replaced; None where the one in use was asked for."""
        return self._place(self._record().get("before"))

    def find_backbone(self, name: str) -> str:
        """Where a backbone that a model file names is today, for workspaces are moved."""
        path = Path(name)
        here = self.backbones / path.name
        return str(here) if path.is_absolute() and not path.exists() and here.exists() else name

    def publish_backbone(self, file: Path) -> None:
        """Use a trained backbone from now on, wherever the server was asked to begin.

        Args:
            file: weights in `backbones`.
        """
        record, before = self._record(), self.backbone_now()
        told = {"backbone": f"{self.backbones.name}/{file.name}", "before": record.get("backbone", before)}
        write_json(self._backbone, {**told, "trained_from": record.get("trained_from") or before})

    @property
    def _backbone(self) -> Path:
        return self.folder / "backbone.json"

    def _record(self) -> dict[str, str]:
        try:
            content = read_json(self._backbone)
        except FileNotFoundError:
            return {}
        return content if isinstance(content, dict) else {}

    def _place(self, name: str | None) -> str | None:
        """A backbone that was trained here is written down relative to the workspace."""
        here = name and Path(name).parts[0] == self.backbones.name
        return str(self.folder / name) if name and here else name

    def _choose(self) -> str:
        from fewshot.features import choose_backbone

        choice = choose_backbone()
        logger.info("Backbone %s: %s; %s remembers it.", choice.name, choice.reason, self._backbone)
        return choice.name


def workspace_name(studies: str) -> str:
    """A readable and unique folder name for a studies folder or address."""
    remote = studies.startswith(("http://", "https://"))
    place = studies.rstrip("/") if remote else os.path.realpath(studies)
    readable = re.sub(r"[^\w.-]+", "_", place.rstrip("/").rsplit("/", 1)[-1]).strip("._") or "studies"
    return f"{readable}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
