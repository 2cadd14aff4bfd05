"""From a message to its answer: fields, clocks, bugs, and one log line for every call."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.log_lines import Lines, log_lines
from tests.support.sessions import WALL_START_MS, Script, Scripted, request
from vastar_client.wire import (
    Disposition,
    ErrorClass,
    ExecuteResponse,
    Message,
    PayloadFormat,
    StreamEnd,
)
from vastar_runtime.calls import Call, Caller
from vastar_runtime.dispatch import ERROR_CLASSES, Dispatcher
from vastar_runtime.identity.visas import NOT_ALLOWED
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply, Streamed
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.policy import Limit
from vastar_runtime.policy.verdicts import Refused, Scope
from vastar_runtime.streams import AnswerStream, ConnectionCredit


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    with log_lines(tmp_path) as logged:
        yield logged


def dispatcher(script: Script) -> Dispatcher:
    return Dispatcher(
        pipeline=Pipeline({"test": Scripted(script)}),
        meters=Meters(("test",)),
        wall_clock_ms=lambda: WALL_START_MS + trio.current_time() * 1000,
        default_timeout_s=30.0,
        stream_timeout_s=600.0,
        max_answer_bytes=10_000,
    )


async def serve(script: Script, **fields: object) -> ExecuteResponse:
    served = dispatcher(script)
    call = served.accept(request(5, **fields), Caller(connection_id=9))
    return await served.serve(call)


def giving(outcome: Outcome, after_s: float = 0.0) -> Script:
    async def give(call: Call) -> Outcome:
        await trio.sleep(after_s)
        return outcome

    return give


async def test_accepting_reads_both_clocks_once(autojump_clock):
    await trio.sleep(100)
    served = dispatcher(giving(Reply(b"x")))
    call = served.accept(request(1, deadline_at_ms=WALL_START_MS + 101_500), Caller(7, 1000, 42))
    assert call.deadline.limit is Limit.CALLER
    assert (call.deadline.budget_s, call.deadline.expires_at_s) == (1.5, 101.5)
    assert (call.caller.uid, call.max_answer_bytes) == (1000, 10_000)


async def test_a_reply_becomes_a_success(autojump_clock):
    answer = await serve(giving(Reply(b"x", PayloadFormat.NATIVE, 204), 0.25))
    assert answer == ExecuteResponse(
        request_id=5,
        payload=b"x",
        duration_us=250_000,
        disposition=Disposition.COMPLETED,
        payload_format=PayloadFormat.NATIVE,
    )


@pytest.mark.parametrize("kind", FailureKind)
async def test_a_failure_carries_its_words_and_no_payload(kind, autojump_clock):
    failure = Failure(kind, "why", 1500, "limiter", Disposition.SENT_NO_RESPONSE)
    answer = await serve(giving(failure))
    assert (answer.error_message, answer.retry_after_ms) == ("why", 1500)
    assert (answer.refused_by, answer.disposition) == ("limiter", Disposition.SENT_NO_RESPONSE)
    assert answer.payload is None
    assert answer.error_class is not ErrorClass.SUCCESS


async def test_a_failure_that_does_not_know_how_far_it_got_is_told_by_the_progress(autojump_clock):
    async def far(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        call.origin = "http://h.test"
        call.progress.response_started = True
        call.attempts, call.queued_us, call.backoff_us = 2, 77, 88
        call.refused(Refused("retry_quota", Scope.TENANT, 1.5, "used up"))
        return Failure(FailureKind.UPSTREAM, "cut short")

    answer = await serve(far)
    assert answer.disposition is Disposition.RESPONSE_STARTED
    assert (answer.attempts, answer.queued_us, answer.backoff_us) == (2, 77, 88)
    assert (answer.refused_by, answer.retry_after_ms) == ("retry_quota:tenant", 1500)


async def test_a_bug_is_an_internal_error_and_its_traceback_is_in_the_log(lines, autojump_clock):
    async def broken(call: Call) -> Outcome:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("of ours")

    answer = await serve(broken, trace_id="tr-1")
    assert (answer.error_class, answer.error_message) == (ErrorClass.PERMANENT, "internal error")
    bug, line = lines()
    assert (bug["event"], bug["trace_id"], bug["request_id"]) == ("internal error", "tr-1", 5)
    assert "ZeroDivisionError: of ours" in str(bug["exception"])
    assert line["event"] == "call"


async def test_several_bugs_at_once_are_one_internal_error(lines, autojump_clock):
    async def broken(call: Call) -> Outcome:
        async def bug() -> None:
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bug)
            nursery.start_soon(bug)
        raise AssertionError

    assert (await serve(broken)).error_message == "internal error"
    assert "ZeroDivisionError" in str(lines()[0]["exception"])


async def test_a_bug_beside_a_cancellation_is_told_and_the_cancellation_goes_on(
    lines, autojump_clock
):
    async def broken(call: Call) -> Outcome:
        async def bug() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError("while leaving")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bug)
            await trio.sleep_forever()
        raise AssertionError

    with trio.move_on_after(1) as scope:
        await serve(broken)
    assert scope.cancelled_caught
    bug, line = lines()
    assert "while leaving" in str(bug["exception"])
    assert line["error_class"] == "GONE"


async def test_the_line_of_a_call_says_who_what_and_how_it_ended(lines, autojump_clock):
    async def upstream(call: Call) -> Outcome:
        await trio.sleep(0.5)
        call.origin, call.status_code = "http://h.test", 503
        call.sent_bytes, call.received_bytes = 10, 20
        call.progress.connect_us, call.progress.first_byte_us = 30, 40
        return Reply(b"x")

    await serve(
        upstream, trace_id="tr", tenant_id="acme", workspace_id="shop", connector_name="test"
    )
    (line,) = lines()
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "call",
        "component": "vastar_runtime.dispatch",
        "trace_id": "tr",
        "tenant": "acme",
        "workspace": "shop",
        "request_id": 5,
        "connection": 9,
        "connector": "test",
        "origin": "http://h.test",
        "status": 503,
        "error_class": "SUCCESS",
        "disposition": "COMPLETED",
        "sent_bytes": 10,
        "received_bytes": 20,
        "duration_us": 500_000,
        "first_byte_us": 40,
        "connect_us": 30,
    }


async def test_a_failure_s_line_has_its_reason(lines, autojump_clock):
    await serve(giving(Failure(FailureKind.TIMEOUT, "too late")))
    (line,) = lines()
    assert (line["error_class"], line["reason"]) == ("TIMEOUT", "too late")
    assert line["disposition"] == "NOT_SENT"


async def test_a_call_whose_caller_went_away_has_its_line_too(lines, autojump_clock):
    with trio.move_on_after(2):
        await serve(giving(Reply(b""), 100))
    (line,) = lines()
    assert (line["error_class"], line["duration_us"]) == ("GONE", 2_000_000)


async def test_a_refusal_is_an_answer_of_which_nothing_was_sent(autojump_clock):
    failure = Failure(FailureKind.OVERLOADED, "full", 200, "bulkhead")
    assert dispatcher(giving(failure)).refuse(request(2**64 - 1), failure) == ExecuteResponse(
        request_id=2**64 - 1,
        error_class=ErrorClass.TRANSIENT,
        error_message="full",
        retry_after_ms=200,
        refused_by="bulkhead",
        disposition=Disposition.NOT_SENT,
    )


async def test_who_may_not_use_a_tenant_is_not_counted_in_its_name(autojump_clock):
    served = dispatcher(giving(Reply(b"")))
    await served.serve(served.accept(request(1, tenant_id="acme"), Caller()))
    served.refuse(request(2, tenant_id="acme"), NOT_ALLOWED)
    (row,) = served.usage.rows()
    assert (row["tenant"], row["calls"], row["refused"]) == ("acme", 1, 0)


# --- streams ------------------------------------------------------------------------------------


async def serve_stream(script: Script, **fields: object) -> ExecuteResponse | StreamEnd:
    """The end of a stream to which nine bytes are sent."""

    async def put(_message: Message) -> None:
        await trio.sleep(0.25)

    async def send(call: Call) -> Outcome:
        assert call.stream is not None
        await call.stream.send(b"ninebytes")
        return await script(call)

    served = dispatcher(send)
    call = served.accept(request(5, stream=True, **fields), Caller(connection_id=9))
    call.stream = AnswerStream(5, ConnectionCredit(), put)
    return await served.serve(call)


async def test_a_stream_has_a_time_of_its_own(autojump_clock):
    served = dispatcher(giving(Reply(b"x")))
    call = served.accept(request(1, stream=True), Caller())
    assert (call.deadline.limit, call.deadline.budget_s) == (Limit.DEFAULT, 600.0)
    call = served.accept(request(1, stream=True, deadline_at_ms=WALL_START_MS + 1000), Caller())
    assert (call.deadline.limit, call.deadline.budget_s) == (Limit.CALLER, 1.0)
    assert served.accept(request(1), Caller()).deadline.budget_s == 30.0
    # How long a body takes is up to its caller and its length.
    assert served.accept(request(1, body_follows=True), Caller()).deadline.budget_s == 600.0


async def test_a_stream_that_went_well_ends_with_what_it_was(lines, autojump_clock):
    async def streamed(call: Call) -> Outcome:
        await trio.sleep(0.5)
        call.attempts, call.status_code = 2, 201
        call.queued_us, call.backoff_us = 77, 88
        call.refused_by, call.retry_after_ms = "retry_quota:tenant", 1500
        return Streamed(201, [("t", "z")])

    assert await serve_stream(streamed) == StreamEnd(
        5,
        duration_us=750_000,
        disposition=Disposition.COMPLETED,
        attempts=2,
        trailers=[("t", "z")],
        total_bytes=9,
        retry_after_ms=1500,
        refused_by="retry_quota:tenant",
        queued_us=77,
        backoff_us=88,
    )
    (line,) = lines()
    assert (line["error_class"], line["disposition"]) == ("SUCCESS", "COMPLETED")
    assert (line["status"], line["duration_us"]) == (201, 750_000)


@pytest.mark.parametrize("kind", FailureKind)
async def test_one_that_failed_ends_with_why(kind, autojump_clock):
    failure = Failure(kind, "why", 1500, "limiter", Disposition.SENT_NO_RESPONSE)
    assert await serve_stream(giving(failure)) == StreamEnd(
        5,
        error_class=ERROR_CLASSES[kind],
        error_message="why",
        duration_us=250_000,
        retry_after_ms=1500,
        disposition=Disposition.SENT_NO_RESPONSE,
        total_bytes=9,
        refused_by="limiter",
    )


async def test_a_bug_in_the_middle_ends_a_stream_too(autojump_clock):
    async def broken(call: Call) -> Outcome:
        raise ZeroDivisionError

    end = await serve_stream(broken)
    assert isinstance(end, StreamEnd)
    assert (end.error_class, end.error_message) == (ErrorClass.PERMANENT, "internal error")
    assert end.total_bytes == 9


async def test_a_refused_stream_has_its_final_frame_and_is_counted(autojump_clock):
    failure = Failure(FailureKind.OVERLOADED, "full", 200, "bulkhead")
    assert dispatcher(giving(failure)).refuse(request(7, stream=True), failure) == StreamEnd(
        7,
        error_class=ErrorClass.TRANSIENT,
        error_message="full",
        retry_after_ms=200,
        refused_by="bulkhead",
        disposition=Disposition.NOT_SENT,
    )
