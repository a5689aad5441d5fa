"""Landmarks: all of them by one model in one pass, against one model for each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timing import Row, compare
from fewshot.features import FeatureBank, load_backbone
from fewshot.landmarks import LandmarkModel, LandmarkTemplate, Mark, find_landmarks, fit_landmarks
from fewshot.phantoms import LANDMARKS, make_phantom

SHAPE = (96, 80, 40)


def rows() -> list[Row]:
    """One row for each method."""
    backbone = load_backbone()
    marked, query = make_phantom(0, shape=SHAPE, orientation="RAS"), make_phantom(1, shape=SHAPE).volume
    with tempfile.TemporaryDirectory() as folder:
        bank = FeatureBank(Path(folder))

        def fit(names: Sequence[str], method: str) -> LandmarkModel:
            marks = {name: Mark(marked.landmarks[name]) for name in names}
            template = LandmarkTemplate(marked.volume, marks)
            return fit_landmarks([template], backbone=backbone, bank=bank, method=method)

        def find(*models: LandmarkModel) -> None:
            for model in models:
                find_landmarks(query, model, backbone=backbone, bank=bank)

        found = []
        for method, least in (("auto", 3.0), ("contrastive", 1.5)):
            together, each = fit(LANDMARKS, method), [fit([name], method) for name in LANDMARKS]
            plain, ours = compare(lambda: find(*each), lambda: find(together), repeats=3)  # noqa: B023 - called at once
            found.append(
                Row(
                    f"{len(LANDMARKS)} landmarks, {method}: a model for each / one model",
                    plain,
                    ours,
                    plain / ours,
                    f"at least {least:g}",
                    plain / ours >= least,
                )
            )
    return found
