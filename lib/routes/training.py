"""Trainings and batch inferences are refused at once where they cannot work, not minutes later in a process."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.endpoints import batch_infer, train
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks

BUSY = "A training is running: wait until it is done, or stop it."


def train_model(
    model: str, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    """Start a training, unless there is nothing to learn from or one is running."""
    instance = app_instance()
    instance.check_training(model, params or {})
    if not enqueue and (_under_way("train") or instance.trains(model)):
        raise HTTPException(429, BUSY)
    return train.run_model(model, params, run_sync, enqueue)


def train_all(params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Start the trainings of several models one after the other, as OHIF does; which, the app says."""
    instance = app_instance()
    if _under_way("train"):
        raise HTTPException(429, BUSY)
    models = instance.trained_together()
    if not models:
        raise HTTPException(404, "No model is trained together with others here: name the one to train.")
    for model in models:
        instance.check_training(model, (params or {}).get(model) or {})
        if instance.trains(model):
            raise HTTPException(429, BUSY)
    started = {}
    for model in models:
        request = {"model": model, **((params or {}).get(model) or {})}
        task, detail = AsyncTask.run("train", request, params, force_sync=run_sync, enqueue=True)
        started[model] = {"result": task, "detail": detail}
    return started


def batch_model(
    model: str, images: Any = None, params: dict[str, Any] | None = None, run_sync: bool = False
) -> Any:
    """Start a batch inference, unless the model is not ready or one is running."""
    instance = app_instance()
    instance.check_inference(model)
    instance.check_batch(model)
    if _under_way("batch_infer"):
        raise HTTPException(429, "A batch inference is running: wait until it is done, or stop it.")
    return batch_infer.run(model, images, params, run_sync)


def _under_way(method: str) -> bool:
    """Whether a background task of this kind runs or waits; its process may not have started yet."""
    return any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks(method))
