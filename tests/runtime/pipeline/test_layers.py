"""The layers around a connector: their order, their words, and what passes through them."""

import pytest
import trio

from tests.support.sessions import Scripted, request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.pipeline.layers import DESCRIPTOR
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.streams import AnswerStream, ConnectionCredit, Upload
from vastar_runtime.transport import Phase


def call(budget_s: float = 30.0, limit: Limit = Limit.DEFAULT, connector: str = "test") -> Call:
    deadline = Deadline(trio.current_time() + budget_s, budget_s, limit)
    return Call(request(1, connector_name=connector), Caller(), deadline, 1000)


def pipeline(script) -> Pipeline:
    return Pipeline({"test": Scripted(script), "other": Scripted(script)})


async def never(call: Call) -> Outcome:
    await trio.sleep_forever()
    raise AssertionError


async def test_the_layers_in_the_order_a_call_meets_them(autojump_clock):
    assert DESCRIPTOR == (
        "deadline",
        "connector",
        "admission",
        "retry",
        "hedging",
        "learned_limit",
        "rate_limit",
        "circuit_breaker",
        "connection_pool",
        "attempt_timeout",
        "transport",
    )


async def test_an_outcome_passes_as_it_is(autojump_clock):
    for outcome in (Reply(b"x"), Failure(FailureKind.UPSTREAM, "no")):

        async def give(call: Call, outcome: Outcome = outcome) -> Outcome:
            await trio.lowlevel.checkpoint()
            return outcome

        assert await pipeline(give).run(call()) is outcome


async def test_an_unknown_connector_is_named_beside_the_known_ones(autojump_clock):
    outcome = await pipeline(never).run(call(connector="Test"))
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST, "Unknown connector: Test; known are other, test"
    )
    outcome = await pipeline(never).run(call(connector="x" * 1000))
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST, f"Unknown connector: {'x' * 100}; known are other, test"
    )


@pytest.mark.parametrize("flag", ["stream", "body_follows"])
async def test_a_connector_that_does_not_stream_is_not_asked_to(flag, autojump_clock):
    async def touched(call: Call) -> Outcome:
        pytest.fail("the connector was asked")

    asked = call()
    if flag == "stream":
        asked.stream = AnswerStream(1, ConnectionCredit(), trio.sleep)  # type: ignore[arg-type]
    else:
        asked.upload = Upload(1, lambda _: None)
    outcome = await Pipeline({"test": Scripted(touched, can_stream=False)}).run(asked)
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST,
        f"connector test does not stream: send the call without `{flag}`",
    )


@pytest.mark.parametrize(("budget_s", "late_ms"), [(0.0, 0), (-0.0004, 0), (-1.5, 1500)])
async def test_what_had_passed_never_reaches_its_connector(budget_s, late_ms, autojump_clock):
    async def touched(call: Call) -> Outcome:
        pytest.fail("the connector was asked")

    outcome = await pipeline(touched).run(call(budget_s, Limit.CALLER))
    assert outcome == Failure(
        FailureKind.TIMEOUT, f"the deadline had passed {late_ms} ms before the call arrived"
    )


@pytest.mark.parametrize("limit", Limit)
async def test_a_timeout_names_its_limit(limit, autojump_clock):
    outcome = await pipeline(never).run(call(2.5, limit))
    assert outcome == Failure(
        FailureKind.TIMEOUT,
        f"timed out: the {limit.value} of 2500 ms passed while preparing the call",
    )
    assert trio.current_time() == 2.5


@pytest.mark.parametrize(
    ("phase", "doing"),
    [
        (Phase.POOL, "waiting for a connection"),
        (Phase.DNS, "looking up the name"),
        (Phase.CONNECT, "connecting"),
        (Phase.PROXY, "asking the proxy"),
        (Phase.TLS, "shaking hands over TLS"),
        (Phase.SEND, "sending the request"),
        (Phase.HEAD, "waiting for the response"),
        (Phase.BODY, "reading the response body"),
    ],
)
async def test_and_what_was_going_on_where(phase, doing, autojump_clock):
    async def stuck(call: Call) -> Outcome:
        call.origin = "http://h.test"
        call.progress.phase = phase
        return await never(call)

    outcome = await pipeline(stuck).run(call(1.0))
    assert isinstance(outcome, Failure)
    assert outcome.message.endswith(f"passed while {doing} (http://h.test)")


async def test_a_caller_s_cancel_is_told_as_that(autojump_clock):
    made = call()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await pipeline(never).run(made) == Failure(
                FailureKind.CANCELLED, "cancelled by caller"
            )

        nursery.start_soon(run)
        await trio.sleep(1)
        made.cancel(FailureKind.CANCELLED)
    assert trio.current_time() == 1


async def test_the_runtime_s_own_end_of_a_call_is_told_as_that(autojump_clock):
    made = call()
    made.cancel(FailureKind.DRAINING)
    assert await pipeline(never).run(made) == Failure(
        FailureKind.DRAINING, "the runtime ended the call while preparing the call"
    )


async def test_a_timeout_that_the_connector_sets_counts(autojump_clock):
    async def limited(call: Call) -> Outcome:
        call.limit_time(250)
        return await never(call)

    outcome = await pipeline(limited).run(call())
    assert isinstance(outcome, Failure)
    assert outcome.message.startswith("timed out: the timeout_ms of 250 ms passed")


async def test_an_outcome_that_was_there_in_time_stands(autojump_clock):
    async def just_in_time(call: Call) -> Outcome:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return Reply(b"x")

    assert await pipeline(just_in_time).run(call(1.0)) == Reply(b"x")


async def test_cancellation_from_outside_is_not_caught(autojump_clock):
    with trio.move_on_after(1) as scope:
        await pipeline(never).run(call())
    assert scope.cancelled_caught


async def test_a_bug_passes_through(autojump_clock):
    async def broken(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pipeline(broken).run(call())
