"""Requests to a PACS: every way to fail is a sentence, and MONAI Label's settings are kept."""

from __future__ import annotations

import re
import socket
import time

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from monailabel.config import Settings

from lib.pacs import client
from lib.pacs.errors import PacsError, told


def failure(url: str, *, query: bool = True, **seconds: float) -> PacsError:
    asked = client.make_client(url, **seconds)
    with pytest.raises(PacsError) as failed, told(url, "list of series", query=query):
        asked.search_for_series()
    assert "\n" not in str(failed.value)
    assert url in str(failed.value)
    return failed.value


@pytest.mark.parametrize(
    ("status", "query", "sentence", "answer"),
    [
        (401, True, "refuses list of series .401.: set MONAI_LABEL_DICOMWEB_USERNAME", 503),
        (403, True, "refuses .*403", 503),
        (404, True, "knows no list of series .404.: is that the DICOMweb address", 503),
        (404, False, "does not have list of series .404.: was it deleted", 404),
        (500, True, "failed over list of series .500.: look into its log", 503),
        (503, True, "failed over .*503", 503),
    ],
)
def test_refusals_are_told(fake, status, query, sentence, answer):
    fake.status = status
    error = failure(fake.url, query=query)
    assert re.search(sentence, str(error)), str(error)
    assert (error.status, error.lost) == (answer, False)
    assert len(fake.asked) == 1, "nobody waits for further attempts"


def test_a_page_of_html_is_told(fake):
    fake.body = "<html>Welcome</html>"
    assert "is not DICOM: is that the DICOMweb address" in str(failure(fake.url))


def test_nobody_there_is_told_without_delay():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/dicom-web"
    start = time.monotonic()
    error = failure(url)
    assert time.monotonic() - start < 2
    assert "cannot be reached (Connection refused)" in str(error)
    assert (error.lost, error.slow) == (True, False)


def test_a_silent_pacs_is_not_waited_for(fake):
    fake.seconds = 3
    start = time.monotonic()
    error = failure(fake.url, query_seconds=0.2)
    assert time.monotonic() - start < 2
    assert "took too long over list of series" in str(error)
    assert (error.lost, error.slow) == (True, True)


def test_longer_answers_may_take_longer(fake):
    fake.seconds = 0.4
    asked = client.make_client(fake.url, query_seconds=0.1, transfer_seconds=5)
    with pytest.raises(PacsError) as failed, told(fake.url, "it"):
        list(asked.iter_series("1.2", "1.3"))
    assert failed.value.status == 404, "it did wait for the answer"


def made(monkeypatch, **environment: str) -> Settings:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    for key in {client.FILTER, client.EXPIRY} - set(environment):
        monkeypatch.setenv(key, "")  # so that what is set later is taken back
        monkeypatch.delenv(key)
    settings = Settings(_env_file=None)
    monkeypatch.setattr(client, "settings", settings)
    return settings


def test_everything_is_searched_unless_somebody_said_what(monkeypatch):
    made(monkeypatch)
    assert client.search_filter() == {}
    background = Settings(_env_file=None)  # as the server's background processes make it
    monkeypatch.setattr(client, "settings", background)
    assert client.search_filter() == {}
    assert client.FILTER in background.model_fields_set


def test_a_search_that_was_set_is_kept(monkeypatch):
    made(monkeypatch, **{client.FILTER: '{"Modality": "CT"}'})
    assert client.search_filter() == {"Modality": "CT"}


def test_how_often_the_pacs_is_asked(monkeypatch):
    made(monkeypatch)
    assert (client.poll_seconds(None), client.poll_seconds(2.5)) == (5, 2.5)
    made(monkeypatch, **{client.EXPIRY: "30"})
    assert (client.poll_seconds(None), client.poll_seconds(2.5)) == (30, 2.5)


def test_headers_are_not_waited_for_as_long_as_pixels(fake):
    fake.seconds = 0.6
    asked = client.make_client(fake.url, query_seconds=5, header_seconds=0.1, transfer_seconds=5)
    with pytest.raises(PacsError) as failed, told(fake.url, "it"):
        asked.retrieve_series_metadata("1.2", "1.3")
    assert failed.value.slow
    assert "took too long over it" in str(failed.value)
