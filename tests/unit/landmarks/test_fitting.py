"""Fitting landmarks: what a model depends on, and which requests are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewshot.errors import FewshotError
from fewshot.landmarks import LandmarkModel
from tests.unit.landmarks.textured import template


def without_times(model: LandmarkModel) -> LandmarkModel:
    return replace(model, created="", regions=replace(model.regions, created=""))


def test_the_same_seed_fits_the_same_model(fit, fitted):
    assert without_times(fit(template())).digest == without_times(fitted).digest
    assert without_times(fit(template(), seed=1)).digest != without_times(fitted).digest


def test_the_boxes_are_as_large_as_told(fit, fitted):
    of_told = fit(template(), radius=2 * fitted.radius)
    assert of_told.radius == 2 * fitted.radius
    small, large = (model.regions.atlas.templates[0].classes for model in (fitted, of_told))
    assert (large > 0).sum() > 4 * (small > 0).sum()


def test_wrong_requests_are_refused_in_words(fit):
    with pytest.raises(FewshotError, match="mark a landmark in at least one volume"):
        fit()
    with pytest.raises(FewshotError, match="no adapter 'magic'"):
        fit(template(), method="magic")
    with pytest.raises(FewshotError, match="no option colour"):
        fit(template(), options={"colour": 1})
