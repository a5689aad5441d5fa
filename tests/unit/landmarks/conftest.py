"""What the tests of whole roads share: a backbone, its bank, and a model of the textured body."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fewshot.features import Backbone, FeatureBank, load_backbone
from fewshot.landmarks import LandmarkModel, LandmarkTemplate, fit_landmarks
from tests.unit.landmarks.textured import template

FAST = {"epochs": 1}
"""Options of the default method, for tests of what registration finds."""


@pytest.fixture(scope="session")
def embedded() -> Backbone:
    return load_backbone("embedded", device="cpu")


@pytest.fixture(scope="session")
def shared_bank(tmp_path_factory: pytest.TempPathFactory) -> FeatureBank:
    return FeatureBank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="session")
def fit(embedded: Backbone, shared_bank: FeatureBank) -> Callable[..., LandmarkModel]:
    def fit(*templates: LandmarkTemplate, **more) -> LandmarkModel:
        return fit_landmarks(templates, **{"backbone": embedded, "bank": shared_bank, "options": FAST} | more)

    return fit


@pytest.fixture(scope="session")
def fitted(fit: Callable[..., LandmarkModel]) -> LandmarkModel:
    return fit(template())
