"""Settings of all tests, in one process or, as `make test` does it, in several (`pytest -n`)."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch and ITK are loaded: a process has one core
    for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, "1")
    for name in ("COLUMNS", "LINES"):  # xdist's own; a console that finds them keeps them for good
        os.environ.pop(name, None)
# For this process and those that it starts: results are the same on processors with and without bfloat16.
os.environ.setdefault("FEWSHOT_DTYPE", "float32")

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# What is loaded inside the first example takes long, and a busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def consoles() -> None:
    """Write to the streams of this test; not by monkeypatch, which would leave them those of a test that is over."""
    from fewshot import console

    console.errors.file = console.results.file = None  # type: ignore[assignment]


SHARED_SERVER = {
    f"tests/server/test_{name}.py" for name in ("errors", "landmarks", "loop", "queue", "starts")
}
"""Files with tests of one server, which are kept together."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with servers, which take longest, come first; the first of them find the shared one untouched."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("server") is None,
            "fresh" not in getattr(item, "fixturenames", ()),
        )
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, in their order; those with tests of the shared server go to one process.

    The marks of `--dist=loadgroup` have no effect with pytest 9.2 (pytest-xdist's issue 1386).
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "the shared server" if file in SHARED_SERVER else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)
