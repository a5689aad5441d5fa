"""Whose inference is computed next, and how one is called off."""

from __future__ import annotations

import threading

import pytest

from lib.queueing import Cancelled, DuplicateTicketError, InferenceQueue, Ticket


def enter(queue: InferenceQueue, client: str, count: int = 1, **more) -> list[Ticket]:
    return [queue.enter("fewshot", f"{client}{n}", client, **more) for n in range(count)]


def drain(queue: InferenceQueue) -> list[str]:
    """The images in the order in which they are computed."""
    order = []
    while running := queue.report()["running"]:
        order.append(running["image"])
        queue.leave(queue.find(running["ticket"]))
    assert queue.report() == {"running": None, "waiting": []}
    return order


def waiting(queue: InferenceQueue) -> list[str]:
    entries = queue.report()["waiting"]
    assert [entry["position"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["image"] for entry in entries]


class TestTurns:
    def test_one_at_a_time_in_order(self):
        queue = InferenceQueue()
        enter(queue, "a", 3)
        assert queue.report()["running"]["position"] == 0
        assert waiting(queue) == ["a1", "a2"]
        assert drain(queue) == ["a0", "a1", "a2"]

    def test_ten_of_one_do_not_hold_up_one_of_another(self):
        queue = InferenceQueue()
        enter(queue, "a", 10)
        enter(queue, "b", 1)
        enter(queue, "c", 2)
        expected = ["b0", "c0", "a1", "c1", *(f"a{n}" for n in range(2, 10))]
        assert waiting(queue) == expected
        assert drain(queue) == ["a0", *expected]

    def test_who_asks_again_and_again_does_not_starve_the_others(self):
        queue = InferenceQueue()
        enter(queue, "a", 2)
        enter(queue, "b", 2)
        order = []
        for n in range(20):
            order.append(queue.report()["running"]["image"])
            queue.leave(queue.find(queue.report()["running"]["ticket"]))
            enter(queue, f"new{n}", 1)
        assert {"a0", "a1", "b0", "b1"} <= set(order[:8])

    def test_clicks_go_before_volumes_and_take_turns_too(self):
        queue = InferenceQueue()
        enter(queue, "a", 2)
        for client in "bbc":
            queue.enter("points", f"click {client}", client, urgent=True)
        assert waiting(queue) == ["click b", "click c", "click b", "a1"]

    def test_an_image_that_is_not_there_yet_lets_others_go_first(self):
        queue = InferenceQueue()
        slow, quick = enter(queue, "a", ready=False), enter(queue, "b")
        assert queue.report()["running"]["image"] == "b0"
        assert waiting(queue) == ["a0"]
        queue.leave(quick[0])
        assert queue.report()["running"] is None
        assert waiting(queue) == ["a0"]
        queue.make_ready(slow[0])
        assert drain(queue) == ["a0"]

    def test_the_next_one_is_woken_and_may_ask_the_queue(self):
        queue, woken = InferenceQueue(), []
        first = enter(queue, "a", wake=lambda: woken.append("a"))[0]
        enter(queue, "b", wake=lambda: woken.append(queue.report()["running"]["image"]))
        assert woken == ["a"]
        queue.leave(first)
        assert woken == ["a", "b0"]

    def test_many_threads(self):
        queue, together, order = InferenceQueue(), [], []

        def annotator(name: str) -> None:
            for n in range(20):
                turn = threading.Event()
                ticket = queue.enter("fewshot", f"{name}{n}", name, wake=turn.set)
                assert turn.wait(30)
                together.append(1)
                order.append(sum(together))
                together.pop()
                queue.leave(ticket)

        threads = [threading.Thread(target=annotator, args=(name,)) for name in "abcdef"]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        assert order == [1] * 120
        assert queue.report() == {"running": None, "waiting": []}
        assert not queue._served, "clients that are gone are forgotten"


class TestCancelling:
    def test_a_waiting_one_is_gone_at_once_and_told(self):
        queue, woken = InferenceQueue(), []
        enter(queue, "a")
        ticket = enter(queue, "b", ticket="mine", wake=lambda: woken.append("b"))[0]
        queue.cancel(queue.find("mine"))
        assert (woken, waiting(queue), queue.find("mine")) == (["b"], [], None)
        with pytest.raises(Cancelled, match="inference of b0 with fewshot was cancelled"):
            ticket.check()

    def test_a_running_one_stops_at_its_next_step_and_keeps_its_turn_until_then(self):
        queue = InferenceQueue()
        ticket, _ = enter(queue, "a", 2)
        progress = queue.progress(ticket.id)
        progress("features", 1, 9)
        queue.cancel(ticket)
        assert queue.report()["running"]["image"] == "a0"
        with pytest.raises(Cancelled):
            progress("features", 2, 9, seconds=1.0)
        queue.leave(ticket)
        assert queue.report()["running"]["image"] == "a1"

    def test_one_that_is_over_stays_so(self):
        queue = InferenceQueue()
        ticket = enter(queue, "a")[0]
        queue.leave(ticket)
        queue.cancel(ticket)
        queue.leave(ticket)
        ticket.check()
        assert drain(queue) == []

    def test_what_has_no_ticket_cannot_be_cancelled(self):
        for ticket in (None, "unknown", 7):
            InferenceQueue().progress(ticket)("features", 1, 2)


class TestTickets:
    def test_the_clients_own_name(self):
        queue = InferenceQueue()
        ticket = enter(queue, "a", ticket="mine")[0]
        assert queue.report()["running"]["ticket"] == "mine"
        with pytest.raises(DuplicateTicketError, match="mine is in use"):
            enter(queue, "b", ticket="mine")
        queue.leave(ticket)
        enter(queue, "b", ticket="mine")

    def test_others_get_one_of_their_own(self):
        queue = InferenceQueue()
        assert len({ticket.id for ticket in enter(queue, "a", 3)}) == 3
