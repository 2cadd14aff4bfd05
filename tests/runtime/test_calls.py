"""The handle of a call: its scope, its deadline, and how far it got over all its hops."""

import math

import pytest
import trio

from tests.support.sessions import request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.outcomes import Disposition, FailureKind
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.transport import Progress


def call(expires_at_s: float = math.inf, budget_s: float = 30.0) -> Call:
    return Call(request(1), Caller(), Deadline(expires_at_s, budget_s, Limit.DEFAULT), 1000)


def test_the_scope_ends_with_the_deadline():
    made = call(1030.0)
    assert made.scope.deadline == 1030.0
    made.limit_time(500)
    assert made.scope.deadline == made.deadline.expires_at_s == 1000.5
    made.limit_time(0)
    assert made.scope.deadline == 1000.5
    made.limit_time(9000)
    assert made.scope.deadline == 1000.5


async def test_the_first_reason_to_cancel_stands(autojump_clock):
    made = call()
    with made.scope:
        made.cancel(FailureKind.CANCELLED)
        made.cancel(FailureKind.DRAINING)
        await trio.sleep_forever()
    assert made.scope.cancelled_caught
    assert made.cancelled_as is FailureKind.CANCELLED


async def test_a_cancel_before_the_call_has_begun_is_not_lost(autojump_clock):
    made = call()
    made.cancel(FailureKind.CANCELLED)
    with made.scope:
        await trio.sleep_forever()
    assert made.scope.cancelled_caught


async def test_the_deadline_is_no_reason_of_anybody_s(autojump_clock):
    made = call(trio.current_time() + 3)
    with made.scope:
        await trio.sleep_forever()
    assert trio.current_time() == 3
    assert made.cancelled_as is None


@pytest.mark.parametrize(
    ("progress", "disposition"),
    [
        (Progress(), Disposition.NOT_SENT),
        (Progress(request_begun=True), Disposition.SENT_NO_RESPONSE),
        (Progress(request_begun=True, response_started=True), Disposition.RESPONSE_STARTED),
        (Progress(response_started=True, completed=True), Disposition.COMPLETED),
    ],
)
def test_the_disposition_never_falls_behind_an_earlier_hop(progress, disposition):
    first = call()
    first.progress = progress
    assert first.disposition is disposition
    second = call()
    second.next_hop()
    assert second.disposition is Disposition.RESPONSE_STARTED
    second.progress = progress
    assert second.disposition is max(disposition, Disposition.RESPONSE_STARTED)


def test_each_hop_has_a_progress_of_its_own():
    made = call()
    made.progress.completed = True
    made.next_hop()
    assert not made.progress.completed
