"""Prompts -> masks: the training of a small Segment Anything on drawn, made-up and real pictures."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from fewshot.pretraining.intensity import change_intensities
from fewshot.refine.sam import small
from tools.small_sam.images import Pool

WEIGHTS = {"drawn": 0.3, "phantom": 0.3, "real": 0.4}
OBJECTS = 8
"""Objects that are prompted for in every picture."""
MASK_SHARE, BOX_SHARE, BACKGROUND_SHARE, SINGLE_SHARE, CORE_SHARE = 0.25, 0.2, 0.35, 0.15, 0.4
COARSE, COARSE_SHARE = 128, 0.55
"""For this share of the time pictures of so many pixels are used: four times as many, and positions are relative."""
FOCAL = 20.0
FEW_POINTS = 2
"""Up to so many points a prompt may mean several things; then the best of three candidates is trained."""


@dataclass
class Said:
    """Prompts for the objects of one picture.

    Attributes:
        points: ``[P, N, 2]`` as (x, y) pixels; labels ``[P, N]``, -1 where there is none.
        boxes: ``[P, 4]`` or None.
        masks: logits ``[P, 1, S / 2, S / 2]`` or None.
        targets: share of each low-resolution pixel inside the object, ``[P, S / 2, S / 2]``.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor | None
    masks: Tensor | None
    targets: Tensor
    few: bool


def augment(image: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Flip, turn by a quarter, zoom and shift, and change grey values as scanners do: ``[1, 1, S, S]`` and objects."""
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, objects = np.rot90(image, turns), np.rot90(objects, turns)
    if flip:
        image, objects = image[:, ::-1], objects[:, ::-1]
    zoom, angle = float(np.exp(rng.uniform(-0.35, 0.5))), float(rng.uniform(-0.4, 0.4))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    shift = rng.uniform(-0.25, 0.25, 2)
    theta = torch.tensor([[[cos, -sin, shift[0]], [sin, cos, shift[1]]]], dtype=torch.float32)
    grid = functional.affine_grid(theta, [1, 1, *image.shape], align_corners=False)
    pixels = torch.from_numpy(image.copy())[None, None]
    pixels = functional.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    limits = torch.tensor([[0.0, 1.0]])
    pixels = change_intensities(pixels, torch.tensor([False]), limits, generator)
    moved = torch.from_numpy(objects.astype(np.float32))[None, None]
    moved = functional.grid_sample(moved, grid, mode="nearest", align_corners=False)
    return pixels, moved[0, 0].numpy().astype(np.int16)


def say(objects: np.ndarray, rng: np.random.Generator) -> Said | None:
    """Prompts for some of the objects; None if there is none."""
    sizes = np.bincount(objects.ravel())
    numbers = [n for n in range(1, len(sizes)) if sizes[n] >= 20]
    if not numbers:
        return None
    numbers = rng.permutation(numbers)[:OBJECTS].tolist()
    single = rng.random() < SINGLE_SHARE
    count = 1 if single else int(rng.integers(2, 13))
    use_box, use_mask = rng.random() < BOX_SHARE, rng.random() < MASK_SHARE
    negative = int(rng.integers(1, 6)) if rng.random() < BACKGROUND_SHARE else 0
    if use_box and rng.random() < 0.5:
        count = negative = 0
    points, labels, boxes, masks, targets = [], [], [], [], []
    for number in numbers:
        mask = objects == number
        targets.append(mask)
        inside = np.argwhere(_core(mask, rng) if rng.random() < CORE_SHARE else mask)
        chosen = [inside[rng.integers(len(inside), size=count)][:, ::-1]]
        said = [np.ones(count, np.float32)]
        if negative:
            around = _ring(mask)
            outside = np.argwhere(around if around.any() else ~mask)
            chosen.append(outside[rng.integers(len(outside), size=negative)][:, ::-1])
            said.append(np.zeros(negative, np.float32))
        points.append(np.concatenate(chosen).astype(np.float32))
        labels.append(np.concatenate(said))
        if use_box:
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.array([cols[0], rows[0], cols[-1], rows[-1]], np.float32)
            boxes.append(box + rng.normal(0, 0.06, 4) * np.tile([np.ptp(cols) + 1, np.ptp(rows) + 1], 2))
        if use_mask:
            masks.append(_rough(mask, rng))
    soft = torch.from_numpy(np.stack(targets)).float()[:, None]
    return Said(
        torch.from_numpy(np.stack(points)),
        torch.from_numpy(np.stack(labels)),
        torch.from_numpy(np.stack(boxes).astype(np.float32)) if boxes else None,
        torch.from_numpy(np.stack(masks))[:, None] if masks else None,
        functional.avg_pool2d(soft, 2)[:, 0],
        few=count <= FEW_POINTS and not use_box and not use_mask,
    )


def _core(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a localisation may have found of an object: a part of it around one place."""
    inside = np.argwhere(mask)
    centre = inside[rng.integers(len(inside))]
    distance = ((inside - centre) ** 2).sum(1)
    kept = inside[distance <= np.quantile(distance, rng.uniform(0.15, 0.7))]
    core = np.zeros_like(mask)
    core[tuple(kept.T)] = True
    return core


def _ring(mask: np.ndarray) -> np.ndarray:
    reach = max(3.0, 0.35 * float(np.sqrt(mask.sum())))
    distance = distance_transform_edt(~mask)
    return (distance > 1.5) & (distance <= reach)


def _rough(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits of a rough mask at half the resolution: blurred, shifted, partly missing, with false parts."""
    reach = float(np.sqrt(mask.sum()))
    soft = gaussian_filter(mask.astype(np.float32), rng.uniform(0.03, 0.2) * reach + 0.5)
    noise = gaussian_filter(rng.standard_normal(mask.shape), 0.15 * reach + 1)
    soft = soft + noise / max(noise.std(), 1e-6) * rng.uniform(0, 0.25)
    if rng.random() < 0.3:
        soft = np.where(binary_erosion(mask, iterations=max(1, int(0.08 * reach))), soft, soft * 0.6)
    soft = soft[::2, ::2]
    return (np.clip((soft - 0.5) * rng.uniform(4, 16), -8, 8)).astype(np.float32)


def decode(model: Any, embedding: Tensor, said: Said) -> tuple[Tensor, Tensor]:
    """Logits ``[P, 4, S / 2, S / 2]`` and expected IoU ``[P, 4]`` of one picture's prompts."""
    points = (said.points, said.labels) if said.points.shape[1] else None
    sparse, dense = model.prompt_encoder(points=points, boxes=said.boxes, masks=said.masks)
    return model.mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


def loss_of(logits: Tensor, quality: Tensor, said: Said) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss and the error of the expected IoU, as SAM was trained; mean Dice of the single mask."""
    target = said.targets[:, None].expand_as(logits)
    shares = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = FOCAL * (entropy * (shares - target).abs() ** 2).mean((2, 3))
    dice = (2 * (shares * target).sum((2, 3)) + 1) / (shares.sum((2, 3)) + target.sum((2, 3)) + 1)
    each = focal + 1 - dice
    chosen = each[:, 0].mean()
    best = each[:, 1:].min(1).values.mean() if said.few else each[:, 1:].mean() * 0.1
    with torch.no_grad():
        hard, true = logits > 0, target > 0.5
        overlap = (hard & true).sum((2, 3)).float() / (hard | true).sum((2, 3)).clamp(min=1)
    error = ((quality - overlap) ** 2).mean()
    found = 2 * overlap[:, 0] / (1 + overlap[:, 0])
    return chosen + 0.5 * best + error, found.mean().detach()


def show_at(model: Any, side: int) -> None:
    """Let the model see pictures of ``side`` pixels; it has no parameter that depends on their size."""
    cells = side // 8
    model.prompt_encoder.input_image_size = (side, side)
    model.prompt_encoder.image_embedding_size = (cells, cells)
    model.prompt_encoder.mask_input_size = (4 * cells, 4 * cells)


class Training:
    """A run that can be interrupted: its state is one file beside the weights.

    Args:
        pool: pictures.
        state: file that holds what is needed to go on.
        minutes: how long to train in all.
        batch: pictures per step.
        frozen: share of the time during which the backbone stays as it is.
    """

    def __init__(
        self,
        pool: Pool,
        state: Path,
        *,
        minutes: float,
        batch: int,
        backbone: Path,
        frozen: float = 0.4,
        seed: int = 0,
    ) -> None:
        self.pool, self.state, self.minutes, self.batch, self.frozen = pool, state, minutes, batch, frozen
        torch.manual_seed(seed)
        self.model = small.build(small.ARCHITECTURE)
        encoder = self.model.image_encoder
        encoder.backbone.load_state_dict({k: v.float() for k, v in load_file(backbone).items()})
        ours = [
            p for name, p in self.model.named_parameters() if not name.startswith("image_encoder.backbone")
        ]
        self.optimiser = torch.optim.AdamW(
            [{"params": ours, "lr": 1.0}, {"params": list(encoder.backbone.parameters()), "lr": 0.0}],
            weight_decay=0.02,
        )
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
        )
        self.steps, self.seconds = 0, 0.0
        self.rng = np.random.default_rng([7, seed])
        self._restore()

    def run(self, report: Any = print) -> None:
        """Train until the time is over; keeps the state every two minutes."""
        last, shown, kept = time.monotonic(), [], time.monotonic()
        while self.seconds < 60 * self.minutes:
            shown.append(self._step())
            now = time.monotonic()
            self.seconds += now - last
            last = now
            if self.steps % 50 == 0:
                loss, dice = np.mean(shown, axis=0)
                report(f"{self.seconds / 60:6.1f} min  step {self.steps}  loss {loss:.3f}  Dice {dice:.3f}")
                shown = []
            if now - kept > 120:
                self._keep()
                kept = now
        self._keep()

    def write(self, out: Path) -> None:
        """Write the averaged weights in half precision."""
        state = {key: value.half().contiguous() for key, value in self.average.module.state_dict().items()}
        partial = out.with_suffix(".part")
        save_file(state, partial, metadata={small.HEADER_KEY: json.dumps(small.ARCHITECTURE)})
        os.replace(partial, out)

    def _step(self) -> tuple[float, float]:
        done = self.seconds / (60 * self.minutes)
        rate = min(1.0, (self.steps + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        thawed = done > self.frozen
        self.optimiser.param_groups[0]["lr"] = 1e-3 * rate
        self.optimiser.param_groups[1]["lr"] = 1e-4 * rate if thawed else 0.0
        side = COARSE if done < COARSE_SHARE else small.ARCHITECTURE["size"]
        show_at(self.model, side)
        pictures = [self._picture(side) for _ in range(self.batch)]
        images = torch.cat([image for image, _ in pictures])
        encoder = self.model.image_encoder
        encoder.backbone.requires_grad_(thawed)
        with torch.set_grad_enabled(thawed):
            features = encoder.features(images)
        embeddings = encoder.neck(features)
        total, dices = 0.0, []
        loss: Tensor = embeddings.new_zeros(())
        for embedding, (_, said) in zip(embeddings, pictures, strict=True):
            part, dice = loss_of(*decode(self.model, embedding[None], said), said)
            loss = loss + part / self.batch
            dices.append(float(dice))
        total = float(loss.detach())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.steps += 1
        return total, float(np.mean(dices))

    def _picture(self, side: int) -> tuple[Tensor, Said]:
        while True:
            image, objects = augment(*self.pool.draw(self.rng, WEIGHTS), self.rng)
            if (factor := image.shape[-1] // side) > 1:
                image = functional.avg_pool2d(image, factor)
                objects = objects[factor // 2 :: factor, factor // 2 :: factor]
            if said := say(objects, self.rng):
                return image, said

    def _keep(self) -> None:
        partial = self.state.with_suffix(".part")
        content = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "rng": json.dumps(self.rng.bit_generator.state),
        }
        torch.save(content, partial)
        os.replace(partial, self.state)

    def _restore(self) -> None:
        if not self.state.exists():
            return
        content = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.steps, self.seconds = content["steps"], content["seconds"]
        self.rng.bit_generator.state = json.loads(content["rng"])
