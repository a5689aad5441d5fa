"""The strategy that OHIF always asks for."""

from __future__ import annotations

import random
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from typing_extensions import override


class Random(Strategy):
    """Any image without a submitted label, preferably one that was not offered lately.

    MONAI Label's own strategy weighs images by the seconds since they were offered and fails when all
    weights are zero, which is when the only image left is asked for twice within a second.
    """

    def __init__(self) -> None:
        super().__init__("Any image that is not labelled yet")

    @override
    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        now = int(time.time())
        offered = [datastore.get_image_info(image).get("strategy", {}).get("random", {}) for image in images]
        weights = [max(0, now - entry.get("ts", 0)) + 1 for entry in offered]
        return {"id": random.choices(images, weights)[0]}
