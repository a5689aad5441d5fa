"""The last words of a background process, which are all that viewers show."""

import sys

import pytest
from fastapi import HTTPException

from fewshot.errors import FewshotError
from lib.background import Ended, _tell
from lib.failures import expected, sentence


@pytest.mark.parametrize(
    ("error", "told", "known"),
    [
        (FewshotError("It is broken: mend it."), "It is broken: mend it.", True),
        (HTTPException(409, "Not yet: do this first."), "Not yet: do this first.", True),
        (Ended("The server is gone."), "The server is gone.", True),
        (RuntimeError("out of memory"), "out of memory", False),
        (KeyError("x"), "KeyError: 'x'", False),
        (MemoryError(), "MemoryError", False),
    ],
)
def test_a_failure_says(error, told, known):
    assert sentence(error) == told
    assert expected(error) is known


@pytest.mark.parametrize("error", [FewshotError("It is broken."), KeyError("x")])
@pytest.mark.parametrize(("method", "what"), [("train", "Training"), ("batch_infer", "Batch inference")])
def test_the_last_line_is_the_sentence(error, method, what, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py", "-m", method, "-r", "{}"])
    try:
        raise error
    except Exception as caught:
        _tell(type(caught), caught, caught.__traceback__)
    written = capsys.readouterr().err
    assert written.splitlines()[-1] == f"{what} failed: {sentence(error)}"
    assert ("Traceback" in written) is isinstance(error, KeyError), "a call stack only where it says more"
