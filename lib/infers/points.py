"""Segmentation of a structure from a few clicks inside of it and outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from typing_extensions import override

from lib.infers.requests import UNNAMED, read_clicks
from lib.infers.task import VolumeTask
from lib.project import Project


class Points(VolumeTask):
    """Finds the structure that was clicked, on the clicked slices or through the volume.

    To a model of `dimension` 2 the viewers send the points of one slice, and they replace that slice of the segment
    and nothing else; to one of `dimension` 3 they send all points and replace the whole segment. So these are two
    tasks and not one with an option: what is drawn on other slices survives the one and not the other.

    The result is 1 where the structure is, whichever it is: viewers give it the segment that was clicked in. Any name
    will do, for people click before a label is known to the app. The parameters hold `label_names` (that one),
    `how`, `timings`, `notes` and `provenance`.

    Args:
        project: what all tasks share.
        whole: follow the structure through the volume.
        description: for the viewer's user.
        clicked: told the image and the slices, once they have been answered.
    """

    compress = True
    """Nearly all voxels are 0: 80 MB of a CT become a few kilobytes."""

    def __init__(
        self,
        project: Project,
        *,
        whole: bool,
        description: str,
        clicked: Callable[[Path, list[int]], None] | None = None,
    ) -> None:
        self.whole = whole
        self.clicked = clicked
        super().__init__(
            project, kind=InferType.DEEPGROW, dimension=3 if whole else 2, description=description
        )

    @override
    def require(self) -> None:
        """Clicks need no template."""

    @override
    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[Any, dict[str, Any]]:
        file, result = super().__call__(request, callbacks)
        result["label_names"] = {
            result.pop("label", UNNAMED): 1
        }  # MONAI Label puts the whole dictionary there
        return file, result

    @override
    def run_inferer(
        self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu"
    ) -> dict[str, Any]:
        """Find the structure with the engine; its mask goes to `pred`."""
        from fewshot.refine.clicks import Clicks

        volume = data["volume"]
        wanted = read_clicks(data, volume.shape, one_slice=not self.whole)
        engine = self.project.engine
        found = engine.segment_clicks(
            volume,
            Clicks(wanted.foreground, wanted.background),
            self.project.slicing.of(volume),
            whole=self.whole,
            device=device,
            progress=self.progress(data),
        )
        sam = engine.refining.sam_for_clicks(device) if found.how.startswith("sam") else None
        slices = sorted({point[2] for point in (*wanted.foreground, *wanted.background)})
        data["pred"] = found.mask.astype(np.uint8)
        data["result"] = {
            "label": wanted.label,
            "how": found.how,
            "timings": found.timings,
            "notes": [*wanted.notes, *found.notes],
            "provenance": {
                "how": found.how,
                **({"sam": sam.name, "digest": sam.digest} if sam else {}),
                "slices": slices,
                "foreground": len(wanted.foreground),
                "background": len(wanted.background),
            },
        }
        if self.clicked:
            self.clicked(Path(data["image"]), slices)
        return data
