"""The accounts of a soak: each lie about a call is found, and a true account has no fault."""

import math

import pytest

from tools.soak._ledger import Downtime, Ledger
from tools.soak._words import (
    Began,
    Ended,
    answer_body,
    event_data,
    filling,
    journal_line,
    wrong_with_answer,
    wrong_with_events,
)
from vastar_client import Disposition

NOT_SENT, COMPLETED = Disposition.NOT_SENT, Disposition.COMPLETED


def post(**changes):
    fields = {"id": "a.1-1", "kind": "post", "at_s": 1.0, "is_counted": True, "is_once": True}
    return Began(**fields | changes)


def end(how="answer", disposition=COMPLETED, **changes):
    return Ended(**{"id": "a.1-1", "at_s": 2.0, "how": how, "disposition": disposition} | changes)


def settled(*ends, call=None, seen=1, acted=1, downtimes=()):
    ledger = Ledger(downtimes=list(downtimes))
    ledger.began(call or post())
    for _ in range(seen):
        ledger.seen("a.1-1")
    for _ in range(acted):
        ledger.acted("a.1-1")
    for each in ends:
        ledger.ended(each)
    ledger.settle()
    return ledger


@pytest.mark.parametrize(
    ("ended", "counts"),
    [
        (end(attempts=1), {}),
        (end(attempts=3), {"seen": 3}),  # twice turned away
        (end("TRANSIENT", NOT_SENT, attempts=3), {"seen": 0, "acted": 0}),
        (end("TRANSIENT", Disposition.SENT_NO_RESPONSE), {"seen": 0, "acted": 0}),
        (end("left", None), {}),
        (end("left", None), {"seen": 0, "acted": 0}),
    ],
)
def test_true_accounts(ended, counts):
    ledger = settled(ended, **counts)
    assert (ledger.wrongs, ledger.settled, ledger.calls) == ([], 1, 1)
    ledger.settle()
    assert (ledger.wrongs, ledger.settled) == ([], 1)


@pytest.mark.parametrize(
    ("ended", "counts", "what"),
    [
        (end(), {"acted": 2, "seen": 2}, "acted 2 times"),
        (end("TRANSIENT", NOT_SENT), {}, "not sent; the upstream saw it 1 times"),
        (end(attempts=1), {"seen": 2}, "told of 1 attempts; the upstream saw it 2 times"),
        (end(), {"seen": 0, "acted": 0}, "never saw it"),
        (end("TRANSIENT"), {"seen": 0, "acted": 0}, "never saw it"),
        (end("lost", Disposition.UNKNOWN), {}, "the runtime was there all along"),
        (end(late_s=100.0), {}, "100.0 s behind its deadline"),
    ],
)
def test_lies_are_found(ended, counts, what):
    (found,) = settled(ended, **counts).wrongs
    assert what in found


def test_a_second_end_is_found_before_and_behind_a_quiet_point():
    ledger = settled(end(), end())
    assert "ended twice" in ledger.wrongs[0]
    ledger.ended(end("TIMEOUT"))
    assert "the second time with TIMEOUT" in ledger.wrongs[1]


def test_what_happens_twice_is_found_also_where_the_client_was_killed():
    ledger = Ledger()
    ledger.began(post())
    ledger.began(post(id="b.2-1"))
    for _ in range(2):
        ledger.seen("a.1-1")
        ledger.acted("a.1-1")
    assert ledger.killed("a.1") == 1
    assert [call.id for call in ledger.open_of("b.2")] == ["b.2-1"]
    ledger.settle()
    assert len(ledger.wrongs) == 1
    assert ledger.abandoned == 1


def test_a_read_may_be_acted_on_twice():
    assert not settled(end(attempts=2), call=post(is_once=False), seen=2, acted=2).wrongs


def test_ids_that_nobody_began_or_somebody_began_twice():
    ledger = Ledger()
    ledger.seen("ghost")
    ledger.began(post())
    ledger.began(post())
    ledger.settle()
    assert ["twice" in each or "nobody" in each for each in ledger.wrongs] == [True, True]


@pytest.mark.parametrize(
    ("down", "is_fault"),
    [
        (Downtime(1.5, 1.8), False),
        (Downtime(1.5, math.inf), False),
        (Downtime(2.5, 3.0), True),
        (Downtime(-30.0, -20.0), True),
        (Downtime(-30.0, -10.0), False),  # in its grace
    ],
)
def test_losses_are_forgiven_while_the_runtime_is_down(down, is_fault):
    ledger = settled(end("lost", Disposition.UNKNOWN), downtimes=[down])
    assert bool(ledger.wrongs) == is_fault


@pytest.mark.parametrize(("timeout_s", "is_fault"), [(0.01, False), (10.0, True)])
def test_who_has_no_time_may_find_no_runtime(timeout_s, is_fault):
    ended = end("absent", NOT_SENT)
    ledger = settled(ended, call=post(timeout_s=timeout_s), seen=0, acted=0)
    assert bool(ledger.wrongs) == is_fault


def test_answers_say_whose_they_are_and_what_was_received():
    body = answer_body("a-1", 1000, b"sent")
    assert wrong_with_answer(body, "a-1", b"sent") is None
    assert wrong_with_answer(answer_body("a-1", 0, b""), "a-1", b"") is None
    assert "that of a-1" in wrong_with_answer(body, "a-2", b"sent")
    assert "got 4 bytes" in wrong_with_answer(body, "a-1", b"more")
    assert "999 bytes, not the 1000" in wrong_with_answer(body[:-1], "a-1", b"sent")
    assert "none of the upstream's" in wrong_with_answer(b"well", "a-1", b"")
    swapped = body[:-2] + body[-1:] + body[-2:-1]
    assert wrong_with_answer(swapped, "a-1", b"sent") is not None
    assert filling(600)[251:502] == filling(251)


def test_events_come_in_order_and_whole():
    data = [event_data("a-1", index, 3) for index in range(3)]
    assert wrong_with_events(data, "a-1", 3, is_whole=True) is None
    assert wrong_with_events(data[:2], "a-1", 3, is_whole=False) is None
    assert "behind 2 of 3" in wrong_with_events(data[:2], "a-1", 3, is_whole=True)
    assert "was due" in wrong_with_events([data[1]], "a-1", 3, is_whole=False)
    assert "was due" in wrong_with_events(data[:1], "a-2", 3, is_whole=False)


def test_lines_of_a_journal_go_through_a_pipe_whole():
    line = journal_line(Ended("blocking.12345-1234567", 1e6, "RATE_LIMITED", NOT_SENT, 3, 1.5))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) < 4096
