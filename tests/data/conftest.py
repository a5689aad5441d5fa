"""Where the labelled data sets are; tests that need them skip with a reason where they are absent."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("FEWSHOT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"the labelled data sets are not at {DATA}; set FEWSHOT_DATA to their folder")
    return DATA
