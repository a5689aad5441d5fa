"""PerSAM cannot run before there is a Segment Anything model, and says so."""

import pytest

from fewshot.baselines import create_baseline
from fewshot.errors import FewshotError


@pytest.mark.parametrize("options", [None, {}, {"threshold": 0.5}])
def test_persam_is_refused_in_one_sentence(options):
    with pytest.raises(
        FewshotError, match=r"^Baseline persam needs a Segment Anything model, .*; choose another"
    ):
        create_baseline("persam", options)
