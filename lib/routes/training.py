"""Trainings and batch inferences: refused at once where they cannot work, and stopped with all that wait."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi import HTTPException
from monailabel.endpoints import batch_infer, train
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask

from lib import tasks
from lib.trainers.base import ABANDONED

BUSY = "A training is running: wait until it is done, or stop it."


def train_model(
    model: str, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    """Start a training, unless there is nothing to learn from or one is running."""
    instance = app_instance()
    instance.check_training(model, params or {})
    with _changing(run_sync):
        if not enqueue and (tasks.under_way("train") or instance.trains(model)):
            raise HTTPException(429, BUSY)
        return train.run_model(model, params, run_sync, enqueue)


def train_all(params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Start the trainings of several models one after the other, as OHIF does; which, the app says."""
    instance = app_instance()
    if tasks.under_way("train"):
        raise HTTPException(429, BUSY)
    models = instance.trained_together()
    if not models:
        raise HTTPException(404, "No model is trained together with others here: name the one to train.")
    for model in models:
        instance.check_training(model, (params or {}).get(model) or {})
    started = {}
    with _changing(run_sync):
        if tasks.under_way("train") or any(instance.trains(model) for model in models):
            raise HTTPException(429, BUSY)
        for model in models:
            request = {"model": model, **((params or {}).get(model) or {})}
            task, detail = AsyncTask.run("train", request, params, force_sync=run_sync, enqueue=True)
            started[model] = {"result": task, "detail": detail}
    return started


def stop_training() -> Any:
    """End the training that runs and all that wait; what was trained before stays in use.

    Returns:
        The task that ran, or else the first that waited; None if there was none.
    """
    stopped = tasks.stop("train")
    if stopped:
        app_instance().end_stats(ABANDONED)
    return stopped


def batch_model(
    model: str, images: Any = None, params: dict[str, Any] | None = None, run_sync: bool = False
) -> Any:
    """Start a batch inference, unless the model is not ready or one is running."""
    instance = app_instance()
    instance.check_inference(model)
    instance.check_batch(model)
    with _changing(run_sync):
        if tasks.under_way("batch_infer"):
            raise HTTPException(429, "A batch inference is running: wait until it is done, or stop it.")
        return batch_infer.run(model, images, params, run_sync)


def stop_batch() -> Any:
    """End the batch inference, also one whose process is only starting; what it has found stays."""
    return tasks.stop("batch_infer")


def _changing(run_sync: bool) -> AbstractContextManager[Any]:
    """Nobody else starts or stops tasks meanwhile; what runs in this request itself is none."""
    return nullcontext() if run_sync else tasks.CHANGING
