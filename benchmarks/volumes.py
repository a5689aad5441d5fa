"""Whole volumes: feature extraction, the second prediction, retraining."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, compare, seconds
from fewshot import pipeline
from fewshot.features import FeatureBank, load_backbone
from fewshot.features.extraction import compute_features
from fewshot.phantoms import make_study
from fewshot.support import Template
from fewshot.volumes import SliceStack


def rows() -> list[Row]:
    """All comparisons on one made-up study and its template."""
    backbone = load_backbone("embedded")
    exact = load_backbone("embedded", dtype=torch.float32)
    (volume, labels), (query, _) = make_study(0), make_study(1)
    names = {str(value): int(value) for value in np.unique(labels)[1:]}
    template = Template(volume, labels, names)
    spec = pipeline.resolve(pipeline.DEFAULT_SPEC, [volume], backbone)
    stack = SliceStack(query, spec, patch=backbone.patch)

    def plain_loop() -> list[torch.Tensor]:
        return [exact.features(torch.from_numpy(stack.render([index]))) for index in range(len(stack))]

    slow, fast = compare(plain_loop, lambda: compute_features(stack, backbone), repeats=5)
    with tempfile.TemporaryDirectory() as folder:
        bank = FeatureBank(Path(folder))
        cold = seconds(lambda: pipeline.fit([template], backbone=backbone, bank=bank))
        model = pipeline.fit([template], backbone=backbone, bank=bank)
        first = seconds(lambda: pipeline.predict(query, model, backbone=backbone, bank=bank))
        second = min(
            seconds(lambda: pipeline.predict(query, model, backbone=backbone, bank=bank)) for _ in range(10)
        )
        retrain = seconds(lambda: pipeline.fit([template], backbone=backbone, bank=bank))
    slices = f"{len(stack)} slices"
    return [
        Row(
            f"features of {slices}: plain fp32 loop / ours", slow, fast, slow / fast, ">= 2", slow / fast >= 2
        ),
        Row(
            f"prediction of {slices}: first / second",
            first,
            second,
            first / second,
            ">= 10",
            first / second >= 10,
        ),
        Row(
            "fit: first / again, one template (s)",
            cold,
            retrain,
            cold / retrain,
            "again < 10 s",
            retrain < 10,
        ),
    ]
