"""Retry as a call meets it: what is tried again, when, and what the caller is told of it."""

import errno
from email.utils import formatdate
from itertools import pairwise

import pytest
import trio

from tests.support.layers import HOST, WALL_START_S, laid, make_call
from tests.support.planned import answer
from vastar_runtime.outcomes import Disposition
from vastar_runtime.policy.backoff import BackoffSettings
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.transport import Phase, StreamedBody
from vastar_runtime.transport.fake import Refuse, Reset, Send, Wait

OFF = CooldownSettings(mode=Mode.OFF)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_tried_again(status, autojump_clock):
    async with laid() as house:
        house.plan(answer(status), answer(200, b"ok"))
        got = await house.ask()
        assert (got.status, got.body, got.call.attempts) == (200, b"ok", 2)
        assert got.call.disposition is Disposition.COMPLETED
        assert (got.refused_by, got.call.retry_after_ms) == (None, 0)


@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 404, 409, 425, 501, 505, 599])
async def test_another_status_is_not(status, autojump_clock):
    async with laid() as house:
        house.plan(answer(status), answer(200))
        got = await house.ask()
        assert (got.status, got.counts) == (status, (1, 0, 0))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
async def test_a_method_that_may_be_repeated_is_tried_again(method, autojump_clock):
    async with laid() as house:
        house.plan(answer(503), [Reset()], answer(200))
        got = await house.ask(method=method)
        assert (got.status, got.call.attempts) == (200, 3)


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "BREW"])
@pytest.mark.parametrize(
    "plan", [answer(408), answer(500), answer(503), [Reset()], [Send(b"junk\r\n\r\n")]]
)
async def test_another_method_is_not_where_the_upstream_may_have_acted(
    method, plan, autojump_clock
):
    async with laid() as house:
        house.plan(plan, answer(200))
        got = await house.ask(method=method)
        assert got.call.attempts == 1
        assert got.status or got.error


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    "plan", [answer(429), answer(503, b"", "Retry-After: 1"), answer(503, b"", "retry-after-ms: 9")]
)
async def test_any_method_is_where_it_has_certainly_not(method, plan, autojump_clock):
    async with laid(cooldown=OFF) as house:
        house.plan(plan, answer(200))
        got = await house.ask(method=method)
        assert (got.status, got.call.attempts) == (200, 2)


async def test_a_method_that_was_not_sent_is(autojump_clock):
    async with laid() as house:
        house.network.add_host(HOST, Refuse())
        got = await house.ask(method="POST")
        assert got.error is not None
        assert (got.call.attempts, got.error.phase) == (3, Phase.CONNECT)
        assert got.call.disposition is Disposition.NOT_SENT
        assert got.call.backoff_us == 25_000 + 50_000


@pytest.mark.parametrize("plan", [answer(500), [Reset()], [Send(b"junk\r\n\r\n")]])
async def test_an_idempotency_key_makes_any_method_repeatable(plan, autojump_clock):
    async with laid() as house:
        house.plan(plan, answer(201))
        got = await house.ask(method="POST", replayable=True, body=b"once")
        assert (got.status, got.call.attempts) == (201, 2)


async def test_every_fault_that_may_pass_is_tried_again(autojump_clock):
    async with laid(attempt_timeout_s=1.0) as house:
        house.plan([Reset()], [Send(b"junk\r\n\r\n")], answer(200))
        assert (await house.ask()).call.attempts == 3
        house.plan([Wait()], answer(200), host="slow.test")
        assert (await house.ask("slow.test")).call.attempts == 2
        house.network.add_host("refused.test", Refuse())
        for host in ("unknown.test", "refused.test"):
            got = await house.ask(host)
            assert got.error is not None
            assert got.call.attempts == 3


async def test_a_fault_of_this_host_is_not(autojump_clock):
    async with laid() as house:
        house.network.add_host(HOST, Refuse(number=errno.EMFILE))
        got = await house.ask()
        assert got.error is not None
        assert got.call.attempts == 1


async def test_no_more_attempts_than_are_allowed(autojump_clock):
    for attempts in (1, 2, 5):
        async with laid(retry=RetrySettings(attempts=attempts)) as house:
            house.plan(answer(503, b"down"))
            got = await house.ask()
            assert (got.status, got.body, got.call.attempts) == (503, b"down", attempts)
            assert house.meters.of("retried") == [("transient",)] * (attempts - 1)
            assert house.meters.of("gave_up") == [("attempts_spent",)]


@pytest.mark.parametrize(
    ("ratio", "times"), [(0.0, [0, 0, 0, 0]), (0.5, [0, 1, 3, 6]), (0.75, [0, 1.5, 4.5, 9])]
)
async def test_backoff_is_a_random_part_of_a_bound_that_doubles(ratio, times, autojump_clock):
    backoff = BackoffSettings(base_s=2.0, cap_s=6.0)
    async with laid(retry=RetrySettings(attempts=4, backoff=backoff)) as house:
        house.ratio = ratio
        upstream = house.plan(answer(503))
        got = await house.ask()
        assert upstream.times == times
        assert got.counts == (4, 0, round(times[-1] * 1e6))
        assert [seconds for _, seconds in house.meters.of("waited")] == [
            later - earlier for earlier, later in pairwise(times)
        ]


async def test_the_default_backoffs(autojump_clock):
    async with laid(cooldown=OFF) as house:
        house.plan(answer(503))
        assert (await house.ask()).call.backoff_us == 25_000 + 50_000
        house.plan(answer(429), host="other.test")
        got = await house.ask("other.test")
        assert got.call.backoff_us == 500_000 + 1_000_000
        assert house.meters.of("retried")[2:] == [("throttled",)] * 2


@pytest.mark.parametrize(
    ("header", "asked_s"),
    [
        ("Retry-After: 4", 4),
        ("Retry-After: 2.5", 2.5),
        (f"Retry-After: {formatdate(WALL_START_S + 8, usegmt=True)}", 8),
        ("retry-after-ms: 1500", 1.5),
        ("Retry-After: 9\r\nretry-after-ms: 1500", 1.5),
        ("Retry-After: 2\r\nRetry-After: 9", 2),
    ],
)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.999])
async def test_what_an_answer_asks_for_is_a_floor_under_some_jitter(
    header, asked_s, ratio, autojump_clock
):
    async with laid() as house:
        house.ratio = ratio
        upstream = house.plan(answer(503, b"", header), answer(200))
        got = await house.ask()
        assert got.status == 200
        assert upstream.times[1] == pytest.approx(asked_s * (1 + 0.25 * ratio))
        assert got.call.backoff_us == round(upstream.times[1] * 1e6)


@pytest.mark.parametrize(
    "header",
    [
        "Retry-After: soon",
        "Retry-After: 0",
        "Retry-After: -1",
        "retry-after-ms: x",
        f"Retry-After: {formatdate(WALL_START_S - 8, usegmt=True)}",
    ],
)
async def test_junk_is_as_if_nothing_were_asked_for(header, autojump_clock):
    async with laid() as house:
        upstream = house.plan(answer(503, b"", header), answer(200))
        assert (await house.ask()).status == 200
        assert upstream.times == [0, 0.025]


async def test_the_longer_of_backoff_and_what_is_asked_for(autojump_clock):
    async with laid(cooldown=OFF) as house:
        upstream = house.plan(answer(429, b"", "retry-after-ms: 10"), answer(200))
        assert (await house.ask()).status == 200
        assert upstream.times == [0, 0.5]


async def test_what_an_answer_asks_for_is_used_once(autojump_clock):
    """Rule 4: never for later attempts, nor for later calls."""
    async with laid(retry=RetrySettings(attempts=4)) as house:
        house.ratio = 0.0
        upstream = house.plan(answer(503, b"", "Retry-After: 3"), answer(503), answer(200))
        assert (await house.ask()).status == 200
        assert upstream.times == [0, 3, 3]
        upstream = house.plan(answer(503), answer(200), host="other.test")
        assert (await house.ask("other.test")).status == 200
        assert upstream.times == [3, 3]


@pytest.mark.parametrize(
    ("asked", "time_s", "reason"),
    [("120.5", 500, "retry_after_too_long"), ("31", 30, "past_deadline")],
)
async def test_what_asks_for_too_much_is_given_up_at_once(asked, time_s, reason, autojump_clock):
    async with laid() as house:
        house.plan(answer(503, b"later", f"Retry-After: {asked}"), answer(200))
        got = await house.ask(time_s=time_s)
        assert (got.status, got.body, got.at_s, got.counts) == (503, b"later", 0, (1, 0, 0))
        assert got.call.retry_after_ms == float(asked) * 1000
        assert got.refused_by is None
        assert house.meters.of("gave_up") == [(reason,)]


async def test_two_minutes_are_waited_for(autojump_clock):
    async with laid() as house:
        house.ratio = 0.0
        upstream = house.plan(answer(503, b"", "Retry-After: 120"), answer(200))
        assert (await house.ask(time_s=500)).status == 200
        assert upstream.times == [0, 120]


async def test_jitter_does_not_miss_the_deadline(autojump_clock):
    async with laid() as house:
        house.ratio = 0.999
        upstream = house.plan(answer(503, b"", "Retry-After: 29"), answer(200))
        assert (await house.ask()).status == 200
        assert 29 < upstream.times[1] < 30


async def test_a_backoff_that_does_not_fit_is_not_begun(autojump_clock):
    backoff = BackoffSettings(base_s=20.0)
    async with laid(retry=RetrySettings(backoff=backoff)) as house:
        house.plan(answer(503, b"down"))
        got = await house.ask(time_s=10)
        assert (got.status, got.at_s, got.call.retry_after_ms) == (503, 0, 0)
        assert house.meters.of("gave_up") == [("past_deadline",)]


async def test_the_last_answer_tells_when_to_come_back(autojump_clock):
    async with laid() as house:
        house.plan(answer(503, b"", "Retry-After: 1"), answer(503), answer(503))
        assert (await house.ask()).call.retry_after_ms == 0
        house.plan(answer(503), answer(503), answer(503, b"", "Retry-After: 7"), host="b.test")
        assert (await house.ask("b.test")).call.retry_after_ms == 7000


async def test_the_deadline_ends_an_attempt_of_a_retry(autojump_clock):
    async with laid() as house:
        house.plan(answer(503), [Wait()])
        got = await house.ask(time_s=5)
        assert (got.timed_out, got.at_s, got.counts) == (True, 5, (2, 0, 25_000))
        assert got.call.disposition is Disposition.COMPLETED, "its first attempt was"
        progress = got.call.progress
        assert (progress.phase, progress.response_started) == (Phase.HEAD, False)
        assert got.call.waiting_for == ""


async def test_and_what_comes_in_the_way_of_a_backoff(autojump_clock):
    """What is cut off was waited for, and leaves nothing behind."""
    backoff = BackoffSettings(base_s=20.0)
    async with laid(retry=RetrySettings(backoff=backoff)) as house:
        house.plan(answer(503, b"down"))
        call = make_call()
        with trio.move_on_after(4):
            await house.ask(call=call)
        assert (call.attempts, call.backoff_us) == (1, 4_000_000)
        assert call.waiting_for == "waiting to try again"
        assert call.disposition is Disposition.COMPLETED
        assert house.meters.of("waited") == [("backoff", 4.0)]


async def test_off_leaves_the_first_result(autojump_clock):
    async with laid(retry=RetrySettings(mode=Mode.OFF)) as house:
        house.plan(answer(503, b"down", "Retry-After: 1"), answer(200))
        got = await house.ask()
        assert (got.status, got.counts) == (503, (1, 0, 0))
        assert not house.meters.told


async def test_observe_decides_and_changes_nothing(autojump_clock):
    async with laid(retry=RetrySettings(mode=Mode.OBSERVE)) as house:
        house.plan(answer(503, b"down"), answer(200))
        got = await house.ask()
        assert (got.status, got.body, got.counts) == (503, b"down", (1, 0, 0))
        assert house.meters.of("retried") == [("transient",)]
        gate = house.around.gates.of("retry", Mode.OBSERVE)
        assert (gate.observed, gate.applied) == (1, 0)


@pytest.mark.parametrize(("size", "attempts"), [(65_536, 2), (65_537, 1)])
async def test_a_body_in_pieces_is_sent_again_while_all_of_it_was_kept(
    size, attempts, autojump_clock
):
    left = [b"x" * size]

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        return left.pop() if left else b""

    async with laid() as house:
        house.plan(answer(503), answer(200, b"ok"))
        got = await house.ask(method="PUT", body=StreamedBody(receive, size))
        assert (got.status, got.call.attempts) == (200 if attempts > 1 else 503, attempts)
        assert house.meters.of("gave_up") == ([] if attempts > 1 else [("not_retryable",)])
