"""Every captured request of the published SDKs, replayed byte for byte, answers as captured.

Only the deadline inside each frame is moved to the present; the bytes are otherwise those of the
SDK. 127.0.0.1:4600 leads to the test's own upstream. `DIFFERENCES` lists every deliberate
difference of our answers, each with its reason; anything else must be equal, up to durations.
"""

import json
from collections.abc import Callable
from struct import pack_into
from typing import Any

import pytest

from tests.support import golden
from tests.support.running import running
from tests.support.sessions import WALL_START_MS
from vastar_client.wire import END_OF_STREAM, Disposition, ErrorClass, ExecuteResponse
from vastar_client.wire import _generated as generated

DEADLINE_SLOT = 6

Change = Callable[[dict[str, Any]], None]


def replaced(**fields: Any) -> Change:
    """The answer has these fields instead."""

    def change(expected: dict[str, Any]) -> None:
        expected.update(fields)

    return change


def in_payload(**keys: Any) -> Change:
    """The answer's JSON has these keys as well."""

    def change(expected: dict[str, Any]) -> None:
        if expected["payload"] is not None:
            expected["payload"].update(keys)

    return change


def one_more_header(name: str, value: str) -> Change:
    """The upstream saw one more header."""

    def change(expected: dict[str, Any]) -> None:
        expected["payload"]["body"]["headers"].append([name, value])
        expected["payload"]["body"]["headers"].sort()

    return change


def no_answer_there(expected: dict[str, Any]) -> None:
    """The SDK had left; whatever we answer is compared with what is given beside this."""


BINARY_BASE64 = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNE"
    "RUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJ"
    "iouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3O"
    "z9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w=="
)
TIMED_OUT = replaced(
    error_class=ErrorClass.TIMEOUT,
    error_message="timed out: the deadline of {budget} ms passed while waiting for the "
    "response (http://127.0.0.1:4600)",
    payload=None,
)

# (scenario or "*", what differs, why)
DIFFERENCES: tuple[tuple[str, Change, str], ...] = (
    ("*", in_payload(success=True), "mends isSuccess() of the Java SDK, disturbs no other"),
    (
        "ids_request",
        one_more_header("x-trace-id", "tr-1"),
        "the trace id goes upstream; the published runtime drops it",
    ),
    (
        "binary_resp",
        in_payload(body_base64=BINARY_BASE64),
        "a body that is not UTF-8 is destroyed there; ours has the exact bytes beside the text",
    ),
    (
        "bad_method",
        replaced(
            error_class=ErrorClass.INVALID_REQUEST,
            error_message="Unsupported HTTP method: FOO; expected GET, HEAD, POST, PUT, PATCH, "
            "DELETE, OPTIONS or another method of IANA's registry",
        ),
        "the caller's own mistake is no Transient fault: an SDK would retry it",
    ),
    (
        "empty_url",
        replaced(
            error_class=ErrorClass.INVALID_REQUEST,
            error_message="Invalid URL: it is empty; expected http://host/... or https://host/...",
        ),
        "the same, and the message names the part",
    ),
    (
        "refused",
        replaced(
            error_message="HTTP request failed: connect failed for 127.0.0.1:1: connection refused"
        ),
        "the cause and the place are named",
    ),
    ("request_timeout_400", TIMED_OUT, "the deadline is kept; the published runtime ignores it"),
    ("client_timeout_400", TIMED_OUT, "the deadline is kept; there the SDK had given up before"),
)


def with_deadline(frame: golden.GoldenFrame) -> bytes:
    """The captured bytes, the deadline moved to as far ahead as it was at the capture."""
    assert frame.deadline_minus_capture_ms is not None
    data = bytearray(frame.frame)
    table = generated.ExecuteRequest.GetRootAs(bytes(frame.flatbuffer), 0)._tab
    position = table.Pos + table.Offset(4 + 2 * DEADLINE_SLOT)
    pack_into("<Q", data, 5 + position, WALL_START_MS + frame.deadline_minus_capture_ms)
    return bytes(data)


def comparable(payload: str | None) -> dict[str, Any] | None:
    """The JSON of an answer, with the echoed request inside it taken apart.

    The order of the echoed headers is that of a hash map in the published runtime, so it is
    compared as a set; lengths of the echoed text follow from it.
    """
    if payload is None:
        return None
    fields: dict[str, Any] = json.loads(payload)
    if fields["headers"].get("x-rig-reply"):
        fields["body"] = json.loads(fields["body"])
        fields["body"]["headers"].sort()
        del fields["headers"]["content-length"]
    return fields


def expected_answer(request: golden.GoldenFrame, answer: golden.GoldenFrame | None) -> Any:
    """The captured answer with the deliberate differences applied."""
    expected = {
        "request_id": request.fields["request_id"],
        "error_class": answer.fields["error_class"] if answer else None,
        "error_message": answer.fields["error_message"] if answer else None,
        "payload": comparable(answer.payload if answer and answer.payload_bytes else None),
    }
    for scenario, change, _why in DIFFERENCES:
        if scenario in {"*", request.scenario}:
            change(expected)
    if expected["error_message"]:
        budget = str(request.deadline_minus_capture_ms)
        expected["error_message"] = expected["error_message"].replace("{budget}", budget)
    return expected


def got_answer(answer: ExecuteResponse) -> dict[str, Any]:
    payload = None if answer.payload is None else bytes(answer.payload).decode()  # type: ignore[arg-type]
    return {
        "request_id": answer.request_id,
        "error_class": answer.error_class,
        "error_message": answer.error_message,
        "payload": comparable(payload),
    }


@pytest.mark.parametrize(
    ("request_frame", "answer_frame"),
    [pytest.param(r, a, id=r.name) for r, a in golden.exchanges()],
)
async def test_a_captured_request_is_answered_as_captured(
    request_frame, answer_frame, autojump_clock
):
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send_bytes(with_deadline(request_frame))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert got_answer(answer) == expected_answer(request_frame, answer_frame)
        await caller.half_close()
        assert await caller.receive() is END_OF_STREAM


async def test_all_captured_requests_of_an_sdk_in_one_pipelined_stream(autojump_clock):
    """Every answer is there, once, whatever its neighbours on the connection are."""
    exchanges = [pair for pair in golden.exchanges() if pair[0].sdk == "ts"]
    wanted = {r.fields["request_id"]: expected_answer(r, a) for r, a in exchanges}
    assert len(wanted) == len(exchanges)
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send_bytes(b"".join(with_deadline(request) for request, _ in exchanges))
        for _ in exchanges:
            answer = await caller.receive()
            assert isinstance(answer, ExecuteResponse)
            assert got_answer(answer) == wanted.pop(answer.request_id)
        await caller.close()
    assert not wanted


def test_every_difference_is_one_of_a_captured_scenario_and_has_a_reason():
    scenarios = {frame.scenario for frame in golden.load()} | {"*"}
    assert {scenario for scenario, _, _ in DIFFERENCES} <= scenarios
    assert all(len(why) > 20 for _, _, why in DIFFERENCES)


async def test_our_timeouts_tell_that_the_upstream_may_have_acted(autojump_clock):
    request, _ = next(p for p in golden.exchanges() if p[0].scenario == "request_timeout_400")
    async with running() as runtime:
        caller = runtime.caller()
        await caller.send_bytes(with_deadline(request))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        assert answer.disposition is Disposition.SENT_NO_RESPONSE
        await runtime.upstream.wait_for("client_closed_while_busy")
        await caller.close()
