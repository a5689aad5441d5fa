"""The whole of a pretraining: studies in, a weights file out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fewshot import __version__
from fewshot.errors import FewshotError
from fewshot.features import embedded
from fewshot.features.backbone import weights_digest
from fewshot.features.registry import build_model, load_model
from fewshot.features.weights import HEADER_KEY
from fewshot.pretraining.monitor import CURVES, PICTURES, Monitor
from fewshot.pretraining.processes import Processes, join_processes
from fewshot.pretraining.settings import PretrainSettings
from fewshot.pretraining.slices import SliceStore, prepare_slices
from fewshot.pretraining.training import Training
from fewshot.progress import Progress, silent
from fewshot.volumes import Volume

DEFAULT_SETTINGS = PretrainSettings()
STATE = "checkpoint.pt"


@dataclass(frozen=True)
class PretrainResult:
    """What came of a pretraining.

    Attributes:
        path: the weights.
        images: how many the training has seen.
        seconds: how long it computed, all runs together.
        failed: studies that were left out, with the reason.
        resumed: whether it went on from a checkpoint.
        finished: False if it was asked to stop before the end; the weights are written all the same.
        trained: False if an earlier run had finished already.
    """

    path: Path
    images: int
    seconds: float
    failed: dict[str, str]
    resumed: bool
    finished: bool
    trained: bool


def pretrain(
    readers: Mapping[str, Callable[[], Volume]],
    out: Path,
    *,
    start: str | None = None,
    settings: PretrainSettings = DEFAULT_SETTINGS,
    device: str = "auto",
    restart: bool = False,
    progress: Progress = silent,
    left_out: Callable[[dict[str, str]], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> PretrainResult:
    """Train a backbone on studies without labels (paper, section 2; Oquab et al. 2023).

    The run folder beside ``out`` (``NAME.run``) holds the slices, the checkpoint, curves for TensorBoard and
    pictures. A training that was interrupted goes on from there when called again.

    Args:
        readers: ``group/name`` -> reads a study, see ``open_studies``.
        out: the weights file, ``.safetensors``, half precision, in the format that ``load_backbone`` reads.
        start: backbone to go on from (DINOv2 or ours); None starts with random weights in the embedded architecture.
        settings: the recipe.
        device: auto, cpu or cuda; started by torchrun, each process takes a GPU of its own.
        restart: forget what an earlier training left in the run folder.
        progress: told the stages "slices" (studies) and "pretrain" (images).
        left_out: told the studies that cannot be read and why, before the training begins.
        stop: asked after each step; True ends the training early with a checkpoint.

    Raises:
        FewshotError: if no study can be read, the loss becomes NaN, the disk is full, or ``start`` cannot be trained.
    """
    if out.suffix != ".safetensors":
        raise FewshotError(f"A weights file ends in .safetensors; {out} does not.")
    with join_processes(device) as processes:
        return _run(
            processes,
            readers,
            out,
            start,
            settings,
            restart=restart,
            progress=progress,
            left_out=left_out,
            stop=stop,
        )


def _run(
    processes: Processes,
    readers: Mapping[str, Callable[[], Volume]],
    out: Path,
    start: str | None,
    settings: PretrainSettings,
    *,
    restart: bool,
    progress: Progress,
    left_out: Callable[[dict[str, str]], None] | None,
    stop: Callable[[], bool],
) -> PretrainResult:
    """`run`, once the processes have joined. A function of its own, so that its networks are gone before they part."""
    folder = run_folder(out)
    torch.manual_seed(settings.seed)
    model, architecture = _initial(start)
    patch = model.patch_embed.patch_size[0]
    if processes.first:
        if restart:
            for name in (STATE, "slices.json"):
                (folder / name).unlink(missing_ok=True)
            for name in (CURVES, PICTURES):
                shutil.rmtree(folder / name, ignore_errors=True)
        store = prepare_slices(
            readers,
            folder,
            size=settings.size,
            per_volume=settings.slices,
            patch=patch,
            progress=progress,
        )
        if left_out:
            left_out(store.failed)
    processes.wait()
    store = SliceStore(folder)
    training = Training(
        model,
        store,
        settings,
        checkpoint=folder / STATE,
        processes=processes,
        start=weights_digest(model) if start else "random",
    )
    before = training.images
    _train(training, store, folder, progress, stop)
    result = PretrainResult(
        path=out,
        images=training.images,
        seconds=training.seconds,
        failed=store.failed,
        resumed=training.resumed,
        finished=training.share >= 1.0,
        trained=training.images > before,
    )
    if processes.first:
        card = _card(training, store, start)
        write_weights(out, training.teacher.backbone, architecture, card)
    processes.wait()
    return result


def run_folder(out: Path) -> Path:
    """Where the training of a weights file keeps its slices, checkpoint, curves and pictures."""
    return out.with_suffix(".run")


def write_weights(path: Path, model: nn.Module, architecture: dict[str, Any], card: dict[str, Any]) -> None:
    """Write a backbone in half precision, beside and renamed into place.

    Raises:
        FewshotError: if it cannot be written; what was there before stays.
    """
    state = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(save(state, {HEADER_KEY: json.dumps(architecture), "training": json.dumps(card)}))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FewshotError(
            f"The weights cannot be written to {path} ({error.strerror or error}); free some space and run the same "
            "command again: the training itself is kept."
        ) from error


def _initial(start: str | None) -> tuple[Any, dict[str, Any]]:
    if start is None:
        architecture = dict(embedded.ARCHITECTURE)
        return build_model(None, architecture, Path("embedded")), architecture
    model, architecture = load_model(start)
    if not isinstance(model, VisionTransformer):
        raise FewshotError(
            f"{start} cannot be trained further here: start from a DINOv2 backbone or from one of ours."
        )
    return model, architecture


def _train(
    training: Training, store: SliceStore, folder: Path, progress: Progress, stop: Callable[[], bool]
) -> None:
    processes, settings = training.processes, training.settings
    monitor = None
    if processes.first:
        monitor = Monitor(folder, store, size=settings.size, seconds=settings.picture_seconds)
    try:
        if monitor and not training.images:
            monitor.picture(training.teacher, 0)  # to compare with
        training.run(monitor, progress=progress if processes.first else silent, stop=stop)
        if monitor:
            monitor.picture(training.teacher, training.images)
    except OSError as error:
        raise FewshotError(
            f"Curves and pictures cannot be written to {folder} ({error.strerror or error}); free some space and run "
            "the same command again: it goes on from the last checkpoint."
        ) from error
    finally:
        if monitor:
            monitor.close()


def _card(training: Training, store: SliceStore, start: str | None) -> dict[str, Any]:
    """What the file says of itself: enough to make it again, nothing of the studies but their number."""
    return {
        "fewshot": __version__,
        "started_from": start or "random weights",
        "studies": len(store.names),
        "slices": len(store),
        "images": training.images,
        "seconds": round(training.seconds),
        "settings": asdict(training.settings),
    }
