"""A place in the pool, the limit on one attempt, and what an answer asks for."""

import pytest
import trio
import trio.testing

from tests.support.layers import Got, in_order, laid, make_call, make_request
from tests.support.planned import answer
from vastar_client.wire import RequestChunk
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Disposition, Failure
from vastar_runtime.pipeline import Upstreams
from vastar_runtime.pipeline.attempt import Attempt, Ended
from vastar_runtime.pipeline.connecting import PoolLayer
from vastar_runtime.policy.cooldown import CooldownSettings
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.retry import RetrySettings
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.streams import Upload
from vastar_runtime.transport import Phase, StreamedBody, TransportError, TransportSettings
from vastar_runtime.transport.fake import BlackHole, Close, Send, Wait

ONCE = RetrySettings(mode=Mode.OFF)
ONE = TransportSettings(connections_per_key=1)


async def test_a_call_waits_for_a_connection_and_tells_how_long(autojump_clock):
    async with laid(pool=ONE) as house:
        house.plan(answer(200, after_s=2.0))
        ends = await in_order(house.ask, house.ask, house.ask)
        assert [(got.at_s, got.counts) for got in ends] == [
            (2, (1, 0, 0)),
            (4, (1, 2 * 10**6, 0)),
            (6, (1, 4 * 10**6, 0)),
        ]
        assert len(house.network.connected) == 1


async def test_also_where_its_deadline_passes_there(autojump_clock):
    async with laid(pool=ONE) as house:
        house.plan(answer(200, after_s=9.0))
        first, second = await in_order(house.ask, lambda: house.ask(time_s=1))
        assert (first.at_s, second.timed_out, second.at_s) == (9, True, 1)
        assert (second.call.attempts, second.call.queued_us) == (0, 10**6)
        assert second.call.progress.phase is Phase.POOL
        assert second.call.disposition is Disposition.NOT_SENT


async def test_the_limit_on_an_attempt_begins_behind_the_wait(autojump_clock):
    """The order: waiting for a connection says nothing about the upstream."""
    async with laid(pool=ONE, attempt_timeout_s=3.0) as house:
        house.plan(answer(200, after_s=2.0))
        ends = await in_order(*[house.ask] * 5)
        assert [got.status for got in ends] == [200] * 5
        assert [got.call.queued_us for got in ends] == [n * 2 * 10**6 for n in range(5)]


async def test_an_attempt_that_takes_too_long_is_ended_and_tried_again(autojump_clock):
    async with laid(attempt_timeout_s=3.0) as house:
        upstream = house.plan([Wait()], answer(200))
        got = await house.ask()
        assert (got.status, got.counts) == (200, (2, 0, 25_000))
        assert upstream.times == [0, 3.025]
        assert len(house.network.open_channels) == 1, "the silent connection was closed"


async def test_not_where_the_upstream_may_have_acted(autojump_clock):
    async with laid(attempt_timeout_s=3.0) as house:
        house.plan([Wait()])
        got = await house.ask(method="POST")
        assert isinstance(got.error, TransportError)
        assert (got.at_s, got.call.attempts, got.error.timed_out) == (3, 1, True)
        assert str(got.error) == (
            "waiting for the response failed for api.test:80: the limit of 3000 ms on one attempt "
            "passed"
        )
        assert got.call.disposition is Disposition.SENT_NO_RESPONSE


async def test_connecting_is_part_of_an_attempt(autojump_clock):
    async with laid(attempt_timeout_s=3.0) as house:
        house.network.add_host("far.test", BlackHole())
        got = await house.ask("far.test", method="POST")
        assert got.error is not None
        assert (got.error.phase, got.call.attempts) == (Phase.CONNECT, 3)
        assert got.call.disposition is Disposition.NOT_SENT


async def test_it_counts_against_the_tenant_and_not_the_host(autojump_clock):
    async with laid(attempt_timeout_s=1.0, retry=ONCE) as house:
        house.plan([Wait()])
        for _ in range(3):
            await house.ask()
        [origin, tenant] = house.breakers()
        assert tenant.totals(trio.current_time()) == (3, 3)
        assert origin.totals(trio.current_time()) == (0, 0)


async def test_a_body_may_take_as_long_as_the_call(autojump_clock):
    async with laid(attempt_timeout_s=1.0) as house:
        head = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        house.plan([head, Wait(20), Send(b"b")])
        got = await house.ask()
        assert (got.body, got.at_s) == (b"ab", 20)


async def test_the_deadline_of_the_call_is_told_from_that_of_an_attempt(autojump_clock):
    async with laid(attempt_timeout_s=3.0) as house:
        house.plan([Wait()])
        got = await house.ask(time_s=3)
        assert (got.timed_out, got.call.attempts) == (True, 1)


def streamed_call(head_timeout_s: float) -> Call:
    call = make_call(time_s=600.0)
    call.head_timeout_s = head_timeout_s
    return call


@pytest.mark.parametrize("attempt_timeout_s", [None, 9.0])
async def test_a_call_may_bring_a_time_of_its_own_for_each_head(attempt_timeout_s, autojump_clock):
    async with laid(attempt_timeout_s=attempt_timeout_s) as house:
        upstream = house.plan(
            [Wait()], answer(503, after_s=1.0), answer(200, after_s=1.0), [Wait()]
        )
        got = await house.ask(call=streamed_call(3.0))
        assert (got.status, got.call.attempts) == (200, 3)
        assert upstream.times == pytest.approx([0, 3.025, 4.075])
        got = await house.ask(method="POST", call=streamed_call(3.0))
        assert str(got.error) == (
            "waiting for the response failed for api.test:80: no head of an answer for 3 s"
        )
        [origin, tenant] = house.breakers()
        assert tenant.totals(trio.current_time()) == (2, 1)
        assert origin.totals(trio.current_time()) == (1, 0), "silence is not told of the host"


async def test_the_shorter_of_both_times_holds(autojump_clock):
    async with laid(attempt_timeout_s=1.0) as house:
        house.plan([Wait()])
        got = await house.ask(method="POST", call=streamed_call(3.0))
        assert got.error is not None
        assert (got.at_s, got.error.cause) == (1, "the limit of 1000 ms on one attempt passed")


async def test_what_the_transport_sends_again_by_itself_is_an_attempt(autojump_clock):
    """An idle connection that turned out dead: nobody decided on it, and it is told."""
    async with laid() as house:
        upstream = house.plan(answer(200), [Close()], answer(200))
        await house.ask()
        got = await house.ask()
        assert (got.status, got.counts) == (200, (2, 0, 0))
        assert len(upstream.times) == 3
        assert not house.meters.of("retried")


async def test_a_transport_that_was_closed_is_no_attempt_and_no_evidence(autojump_clock):
    async with laid() as house:
        house.plan(answer(200))
        await house.transport.aclose()
        got = await house.ask()
        assert got.error is not None
        assert (got.error.cause, got.call.attempts) == ("the transport was closed", 0)
        assert all(each.totals(trio.current_time()) == (0, 0) for each in house.breakers())


async def test_nor_is_a_wait_that_it_ended(autojump_clock):
    async with laid(pool=ONE) as house:
        house.plan(answer(200, after_s=5.0))
        ends = []
        house.start(ends)
        house.start(ends)
        await trio.sleep(1)
        await house.transport.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got.counts for got in ends) == [(0, 10**6, 0), (1, 0, 0)]
        assert all(got.error for got in ends)


async def test_what_is_inside_and_does_not_use_its_place_gives_it_back(autojump_clock):
    async with laid(pool=ONE) as house:

        async def refuse(attempt: Attempt) -> Ended:
            await trio.lowlevel.checkpoint()
            assert attempt.place is not None
            return Ended.by_refusal(Refused("rate_limit", Scope.ORIGIN, None, "no"))

        upstreams = Upstreams(lambda _: PoolLayer(refuse, house.around), house.around)
        with upstreams.lease(make_call()) as lease:
            for _ in range(2):
                assert isinstance(await lease.request(make_request()), Failure)


@pytest.mark.parametrize(
    ("status", "asked_ms"), [(200, 0), (302, 0), (404, 7000), (429, 7000), (501, 7000)]
)
async def test_only_an_error_asks_for_something(status, asked_ms, autojump_clock):
    """Of what was tried again: the last answer's word is what the caller is told."""
    async with laid(cooldown=CooldownSettings(mode=Mode.OFF)) as house:
        house.plan(answer(503), answer(503), answer(status, b"", "Retry-After: 7"))
        got = await house.ask()
        assert (got.status, got.call.retry_after_ms) == (status, asked_ms)


async def test_a_place_has_served_once_its_response_is_there(autojump_clock):
    async with laid(pool=ONE) as house:
        house.plan(answer(200, b"abc"))
        with house.layers.lease(make_call()) as lease:
            response = await lease.request(make_request())
            assert not isinstance(response, Failure)
            assert await response.read_all() == b"abc"
            [stats] = house.transport.stats()
            assert (stats.busy, stats.idle) == (0, 1)


async def test_a_call_may_limit_the_time_to_its_head_alone(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan([Wait()])
        call = make_call()
        call.head_timeout_s = 4.0
        got = await house.ask(call=call)
        assert (got.at_s, got.call.attempts) == (4, 1)
        assert "no head of an answer for 4 s" in str(got.error)


async def test_that_time_begins_when_the_body_has_been_taken(autojump_clock):
    async with laid(retry=ONCE) as house:
        house.plan([Wait(3), *answer(200)], [Wait()])
        for ends_at_s, status in ((13, 200), (29, 0)):
            call = make_call()
            call.head_timeout_s = 4.0
            call.upload = upload = Upload(1, lambda _: None)
            body = StreamedBody(upload.receive, 4)
            ends: list[Got] = []
            house.start(ends, method="PUT", body=body, call=call)
            await trio.sleep(10)
            upload.put(RequestChunk(1, 0, b"body", last=True))
            await trio.sleep(5)
            [got] = ends
            assert (got.at_s, got.status) == (ends_at_s, status)
