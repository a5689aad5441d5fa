"""Asking a PACS: many who ask share its answers, nobody waits long, and nobody is told of his own labels."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from lib.pacs import watching
from lib.pacs.catalog import Catalog, Contents
from lib.pacs.client import make_client
from lib.pacs.errors import PacsError
from lib.pacs.watching import Watch
from tests.pacs.fake import FakePacs
from tests.pacs.making import another, make_seg, write_image


class Watched:
    """A watch, and what it told."""

    def __init__(self, fake: FakePacs, **client: float) -> None:
        self.seen: list[tuple[Contents, Contents]] = []
        self.told: list[tuple[list[str], bool]] = []
        self.watch = Watch(
            Catalog(make_client(fake.url, **client)),
            seen=lambda before, now: self.seen.append((before, now)),
            labelled=lambda images, since: self.told.append((images, since)),
        )


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def all_at_once(*calls) -> list[object]:
    """What each call raises, None where it does not, of calls that overlap with a first one."""
    raised: list[object] = [None] * len(calls)

    def run(at: int) -> None:
        try:
            calls[at]()
        except PacsError as error:
            raised[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for at, thread in enumerate(threads):
        thread.start()
        if at == 0:
            time.sleep(0.1)  # it is asking when the others come
    for thread in threads:
        thread.join()
    return raised


def test_many_who_ask_share_one_answer(fake, made):
    watched = Watched(fake)
    fake.store(made[0])
    watched.watch.ask()
    fake.queries()
    fake.seconds = 0.4
    start = time.monotonic()
    assert all_at_once(*[watched.watch.ask] * 20) == [None] * 20
    assert len(fake.queries()) == 2, "the one that was under way when they came may be too old for them"
    assert time.monotonic() - start < 2


def test_many_who_ask_share_one_failure(fake):
    watched = Watched(fake, query_seconds=0.4)
    fake.seconds = 2.0
    start = time.monotonic()
    raised = all_at_once(*[watched.watch.ask] * 20)
    assert all(isinstance(error, PacsError) for error in raised)
    assert time.monotonic() - start < 2
    assert "took too long" in str(watched.watch.problem)
    fake.seconds = 0
    watched.watch.ask()
    assert watched.watch.problem is None


def test_who_asks_sees_what_was_stored_before(fake, made, monkeypatch):
    watched = Watched(fake)
    answered, go_on = threading.Event(), threading.Event()
    ask = watched.watch._catalog.ask

    def slow(*seconds: float | None) -> Contents:
        contents = ask(*seconds)
        answered.set()
        go_on.wait(20)
        return contents

    monkeypatch.setattr(watched.watch._catalog, "ask", slow)
    first = threading.Thread(target=watched.watch.ask)
    first.start()
    assert answered.wait(20)
    fake.store(made[0])
    second = threading.Thread(target=watched.watch.ask)
    second.start()
    wait_for(lambda: watched.watch._next)
    go_on.set()
    first.join()
    second.join()
    assert list(watched.watch.contents.images) == [made[1]]


def test_nobody_is_told_of_his_own_label_whoever_asks_with_him(fake, made, tmp_path):
    folder, uid, seg = made
    other = write_image(tmp_path / "ct", 1)
    fake.store(folder, tmp_path / "ct")
    watched = Watched(fake)
    watch = watched.watch
    watch.ask()
    fake.store(seg, make_seg(tmp_path / "ct", tmp_path / "seg.dcm", {1: "aorta"}))
    calls = (watch.ask, lambda: watch.ask(own=uid), watch.ask)
    threads = [threading.Thread(target=call) for call in calls]
    fake.queries()
    with watch._asking:  # as if it were being asked
        for thread in threads:
            thread.start()
            wait_for(lambda: watch._next)
        wait_for(lambda: uid in watch._next.own)
    for thread in threads:
        thread.join()
    assert len([path for path in fake.queries() if "metadata" not in path]) <= 2, (
        "one list, whether more follow"
    )
    wait_for(lambda: watched.told)
    watch.ask()
    assert watched.told == [([other], True)]


def test_a_server_knows_images_and_answers_while_it_reads_many_labels(fake, made, monkeypatch):
    folder, uid, seg = made
    monkeypatch.setattr(watching, "READ_SECONDS", 0.2)
    monkeypatch.setattr(watching, "FIRST_SECONDS", 0.5)
    fake.store(folder, *(another(seg) for _ in range(20)))
    fake.slow = {"metadata": 0.1}
    watched = Watched(fake)
    watched.watch.follow(0.5)
    assert list(watched.watch.contents.images) == [uid]
    assert watched.watch.contents.waiting
    start = time.monotonic()
    watched.watch.ask()
    assert time.monotonic() - start < 1.5
    wait_for(lambda: not watched.watch.contents.waiting)
    assert len(watched.watch.contents.listed) == 20
    assert not any(since for _, since in watched.told), "these labels are as old as the others"
    fake.store(newest := another(seg, ContentDate="20300101"))
    wait_for(lambda: watched.told[-1] == ([uid], True))
    assert watched.watch.contents.persons[uid].series == newest.SeriesInstanceUID


def test_a_process_that_asks_once_reads_all_labels(fake, made, monkeypatch):
    folder, _, seg = made
    monkeypatch.setattr(watching, "READ_SECONDS", 0.1)
    fake.store(folder, *(another(seg) for _ in range(5)))
    fake.slow = {"metadata": 0.1}
    watched = Watched(fake)
    watched.watch.ask()
    assert watched.watch.contents.waiting == 0


def test_a_label_can_be_left_out_while_the_pacs_is_being_asked(fake, made):
    folder, uid, seg = made
    fake.store(folder, seg)
    watched = Watched(fake)
    watched.watch.ask()
    contents = watched.watch.contents
    fake.seconds = 1.0
    asking = threading.Thread(target=watched.watch.ask)
    asking.start()
    wait_for(lambda: watched.watch._asking.locked())
    watched.watch.leave_out(contents.persons[uid], contents.images[uid], "it is empty.")
    assert asking.is_alive()
    assert watched.watch.contents.persons == {}
    asking.join()
    assert watched.watch.contents.persons == {}


def test_nothing_is_made_anew_where_nothing_changed(fake, made):
    fake.store(*made[::2])
    watched = Watched(fake)
    watched.watch.ask()
    known = watched.watch.contents
    watched.watch.ask()
    assert watched.watch.contents is known
    fake.files[next(iter(fake.files))].popitem()
    watched.watch.ask()
    assert watched.watch.contents is not known


def test_no_answer_is_not_an_empty_pacs(fake):
    fake.status = 500
    watched = Watched(fake)
    with pytest.raises(PacsError):
        watched.watch.ask()
    assert watched.seen == []
