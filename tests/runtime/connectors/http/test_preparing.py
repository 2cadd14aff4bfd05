"""What is asked again is made once, whatever belongs to one call only; nothing of it is shown."""

import json

import pytest
import trio

from tests.support.sessions import request as message_of
from vastar_client.wire import HttpRequest, PayloadFormat, encode_http_request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.http import preparing
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.json_text import PIECE_BYTES
from vastar_runtime.connectors.http.preparing import Preparer
from vastar_runtime.policy.deadline import Deadline, Limit
from vastar_runtime.streams import Upload
from vastar_runtime.transport import StreamedBody

URL = "http://me:pw@api.test/x"


def call_of(payload: bytes | None = None, *, native: bool = False, **fields: object) -> Call:
    if payload is None:
        payload = json.dumps({"url": URL, "headers": {"a": "1"}}).encode()
    payload_format = PayloadFormat.NATIVE if native else PayloadFormat.JSON
    message = message_of(1, payload=payload, payload_format=payload_format, **fields)
    return Call(message, Caller(), Deadline(1e9, 1, Limit.DEFAULT), 1000)


def preparer() -> Preparer:
    return Preparer("gzip", iter(range(1, 99)).__next__)


async def test_the_same_payload_gives_the_very_same_request(autojump_clock):
    known = preparer()
    plan, request = known.prepare(call_of())
    again = known.prepare(call_of())
    assert again[0] is plan
    assert again[1] is request
    assert [name for name, _ in request.headers] == [
        b"a",
        b"authorization",
        b"accept",
        b"accept-encoding",
        b"host",
    ]


async def test_what_belongs_to_one_call_is_put_in_its_place(autojump_clock):
    known = preparer()
    plain = known.prepare(call_of())[1]
    traced = known.prepare(call_of(trace_id="a" * 32, idempotency_key="k"))[1]
    other = known.prepare(call_of(trace_id="b" * 32))[1]
    assert [name for name, _ in traced.headers] == [
        b"a",
        b"authorization",
        b"idempotency-key",
        b"traceparent",
        b"accept",
        b"accept-encoding",
        b"host",
    ]
    assert (plain.replayable, traced.replayable, other.replayable) == (False, True, False)
    assert traced.headers[3] != other.headers[2]
    assert known.prepare(call_of())[1] is plain
    assert len(plain.headers) == 5


async def test_the_format_is_part_of_what_is_known(autojump_clock):
    known = preparer()
    native = b"".join(encode_http_request(HttpRequest(url=URL)))
    plan, _ = known.prepare(call_of(native, native=True))
    assert plan.decodes
    with pytest.raises(InvalidCall):
        known.prepare(call_of(native))


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"url": URL, "method": "POST", "body": "text"}).encode(),
        json.dumps({"url": URL, "headers": {"long": "x" * 2000}}).encode(),
    ],
    ids=["a body", "long"],
)
async def test_a_body_and_what_is_long_are_made_anew(payload, autojump_clock):
    known = preparer()
    first, second = known.prepare(call_of(payload)), known.prepare(call_of(payload))
    assert first == second
    assert first[0] is not second[0]


async def test_a_body_that_follows_belongs_to_its_call(autojump_clock):
    known = preparer()
    requests = []
    for _ in range(2):
        call = call_of(b'{"url":"http://api.test/","headers":{"content-length":"3"}}')
        call.upload = Upload(1, lambda _: None)
        requests.append(known.prepare(call)[1])
    bodies = [request.body for request in requests]
    assert all(isinstance(body, StreamedBody) and body.length_bytes == 3 for body in bodies)
    assert bodies[0] is not bodies[1]
    call = call_of(b'{"url":"http://api.test/","body":"x"}')
    call.upload = Upload(1, lambda _: None)
    with pytest.raises(InvalidCall, match="give one of the two"):
        known.prepare(call)


async def test_what_is_known_is_bounded_and_shows_no_secret(autojump_clock, monkeypatch):
    monkeypatch.setattr(preparing, "_MAX_KNOWN", 4)
    known = preparer()
    for number in range(20):
        plan, _ = known.prepare(call_of(json.dumps({"url": f"{URL}{number}"}).encode()))
        assert "pw" not in repr(plan)
    assert len(known._known) <= 4
    await trio.lowlevel.checkpoint()


async def test_others_have_their_turns_while_a_long_body_is_read(autojump_clock):
    payload = json.dumps({"url": URL, "body": "x" * (20 * PIECE_BYTES)}).encode()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        _, request = await preparer().prepare_long(call_of(payload))
        assert turns >= 10
        nursery.cancel_scope.cancel()
    assert b"".join(request.body) == b"x" * (20 * PIECE_BYTES)


async def test_a_long_payload_with_little_body_is_prepared_alike(autojump_clock):
    payload = json.dumps({"url": URL, "unknown": "x" * PIECE_BYTES, "body": "b"}).encode()
    known = preparer()
    _, request = await known.prepare_long(call_of(payload))
    assert request == known.prepare(call_of(payload))[1]
