"""Batch inference that also works without a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from fewshot.errors import FewshotError

logger = logging.getLogger(__name__)


class BatchInference(BatchInferTask):
    """MONAI Label's batch inference, which asks for several GPUs by default and divides by their number."""

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Infer all requested images; one that cannot be read does not stop the others."""

        def infer_or_tell(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except (FewshotError, HTTPException) as error:
                sentence = error.detail if isinstance(error, HTTPException) else str(error)
                logger.error("%s was left out: %s", one.get("image"), sentence)
                return {"error": sentence}

        several = bool(request.get("multi_gpu", True)) and torch.cuda.device_count() > 1
        result: dict[str, Any] = super().__call__({**request, "multi_gpu": several}, datastore, infer_or_tell)
        return result
