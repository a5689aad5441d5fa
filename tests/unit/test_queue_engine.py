"""An inference that was called off gives the engine free, whether it computes or waits for another computation."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fewshot.adapters import ADAPTERS
from fewshot.model import Model
from fewshot.phantoms import ORGANS, make_study
from fewshot.refine.clicks import Clicks
from fewshot.support import Template
from lib.engine import Engine
from lib.queueing import Cancelled


@pytest.fixture
def engine(tmp_path) -> Engine:
    return Engine(lambda: "random-tiny", find=lambda name: "random-tiny", bank=tmp_path)


@pytest.fixture(scope="module")
def study():
    return make_study(0, shape=(48, 40, 8))


def fitted(engine: Engine, study) -> Model:
    volume, labels = study
    return engine.fit(
        [Template(volume, (labels == ORGANS["liver"]).astype(np.uint16), {"liver": 1})],
        adapter=next(name for name in ADAPTERS if "prototype" in name),
        labels={"liver": 1},
    )


def predict(engine: Engine, study, model, progress) -> None:
    engine.predict(study[0], model, components="auto", progress=progress)


def click(engine: Engine, study, model, progress) -> None:
    volume = study[0]
    engine.segment_clicks(
        volume, Clicks([(24, 20, 4)], []), engine.slicing([volume]), whole=True, progress=progress
    )


@pytest.mark.parametrize("work", [predict, click])
def test_while_it_waits(engine, study, work):
    ticket = engine.queue.enter("fewshot", "a", "ann")
    model, failed = fitted(engine, study), []

    def run() -> None:
        try:
            work(engine, study, model, engine.queue.progress(ticket.id))
        except Cancelled:
            failed.append(True)

    with engine.turns.take([]):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        engine.queue.cancel(ticket)
        thread.join(30)
        assert failed == [True]


@pytest.mark.parametrize("work", [predict, click])
def test_while_it_computes(engine, study, work):
    ticket = engine.queue.enter("fewshot", "a", "ann")
    model, steps = fitted(engine, study), []
    progress = engine.queue.progress(ticket.id)

    def cancel_later(*step, **values) -> None:
        steps.append(step[0])
        if step[0] != "wait":
            engine.queue.cancel(ticket)
        progress(*step, **values)

    with pytest.raises(Cancelled, match="inference of a with fewshot"):
        work(engine, study, model, cancel_later)
    assert steps[0] == "wait"
    assert len(steps) == 2
    with engine.turns.spare():  # nobody computes, and nobody wants to
        pass
    work(engine, study, model, engine.queue.progress(None))
