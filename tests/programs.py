"""Programs beside Python that some tests need: Debian packages, which the tests of a change always have."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "FEWSHOT_TESTS_SKIP_NOTHING"


def program(*names: str, package: str) -> str:
    """Where a program is, under the first of its names that exists; skips the test where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    reason = f"{names[0]} is not installed (apt-get install {package})"
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)
