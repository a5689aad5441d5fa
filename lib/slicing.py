"""How the next model of this workspace will want images to be cut."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot.volumes import SliceSpec, Volume
    from lib.project import Project


class Slicing:
    """Decided by the templates, without one by the image itself; kept until the templates change.

    What is computed for an image in advance has to be computed in just these slices, or nobody will find it.

    Args:
        project: whose templates.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._mutex = threading.Lock()
        self._known: dict[str | None, tuple[object, SliceSpec]] = {}

    def of(self, image: Volume, backbone: str | None = None) -> SliceSpec:
        """How an image is to be cut.

        Args:
            image: it counts where there is no template yet.
            backbone: another one than that in use.

        Raises:
            FewshotError: if a template cannot be read.
        """
        submissions, engine = self._project.submissions(), self._project.engine
        if not submissions:
            return engine.slicing([image], backbone=backbone)
        key = (backbone or engine.name, [(entry.image_id, entry.stamp) for entry in submissions])
        with self._mutex:
            known = self._known.get(backbone)
            if known is None or known[0] != key:
                templates = self._project.template_images(submissions)
                known = key, engine.slicing(templates, backbone=backbone)
                if not templates.passing:
                    self._known[backbone] = known
            return known[1]
