"""What an upstream is sent for what a caller asked: the request line, headers and body as bytes."""

import json
from typing import Any

import pytest
import trio

from tests.support.http_calls import NATIVE, ORIGIN, RAW_PORT, RAW_URL, json_of, native_payload
from tests.support.running import Running, running
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.transport.memory import MemoryChannel

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def sent_for(
    payload: object, **fields: Any
) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Request line, headers and body that an upstream received."""
    seen = bytearray()

    async def record(channel: MemoryChannel) -> None:
        while b"\r\n\r\n" not in seen:
            seen.extend(await channel.receive_some())
        with trio.move_on_after(0.001):
            while True:
                seen.extend(await channel.receive_some())
        await channel.send_buffers([b"HTTP/1.1 204 No Content\r\n\r\n"])

    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = record
        answer = await runtime.http(payload, **fields)
        assert answer.error_class is ErrorClass.SUCCESS, answer.error_message
    head, _, body = bytes(seen).partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    pairs = [(name, value) for name, _, value in (h.partition(b": ") for h in headers)]
    return line, pairs, body


HOST = (b"host", b"127.0.0.1:4700")


async def test_a_bare_get(autojump_clock):
    assert await sent_for({"url": RAW_URL}) == (
        b"GET / HTTP/1.1",
        [(b"accept", b"*/*"), HOST],
        b"",
    )


async def test_the_published_order(autojump_clock):
    """The caller's headers, accept, host, content-length: as the published runtime sends them."""
    line, headers, body = await sent_for(
        {
            "url": RAW_URL.replace("//", "//u:p@") + "/a b?q=é#f",
            "method": "post",
            "headers": {"X-B": "1", "Content-Type": "text/plain", "x-a": "é"},
            "body": "héllo",
        },
        trace_id=TRACE,
        idempotency_key="once",
    )
    assert line == b"POST /a%20b?q=%C3%A9 HTTP/1.1"
    assert headers == [
        (b"x-b", b"1"),
        (b"content-type", b"text/plain"),
        (b"x-a", "é".encode()),
        (b"authorization", b"Basic dTpw"),
        (b"idempotency-key", b"once"),
        (b"traceparent", f"00-{TRACE}-0000000000abcdef-01".encode()),
        (b"accept", b"*/*"),
        HOST,
        (b"content-length", b"6"),
    ]
    assert body == "héllo".encode()


async def test_what_the_caller_says_itself_counts(autojump_clock):
    own = {
        "Host": "other.test",
        "Accept": "a/b",
        "Authorization": "own",
        "Traceparent": "own",
        "Idempotency-Key": "own",
        "Content-Length": "2",
    }
    _, headers, body = await sent_for(
        {"url": RAW_URL.replace("//", "//u:p@"), "method": "PUT", "headers": own, "body": "hi"},
        trace_id="tr",
        idempotency_key="ours",
    )
    assert headers == [(name.lower().encode(), value.encode()) for name, value in own.items()]
    assert body == b"hi"


async def test_a_trace_id_of_the_caller_s_own_header_is_not_joined_by_another(autojump_clock):
    for own in ("traceparent", "X-Trace-Id"):
        _, headers, _ = await sent_for({"url": RAW_URL, "headers": {own: "mine"}}, trace_id="tr")
        assert [value for name, value in headers if b"trace" in name] == [b"mine"]
    _, headers, _ = await sent_for({"url": RAW_URL}, trace_id="tr\r\nx: y")
    assert (b"x-trace-id", b"tr%0D%0Ax: y") in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_methods_that_expect_a_body_say_that_there_is_none(method, autojump_clock):
    for body in (None, ""):
        _, headers, sent = await sent_for({"url": RAW_URL, "method": method, "body": body})
        assert (headers[-1], sent) == ((b"content-length", b"0"), b"")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_other_methods_say_nothing_of_a_body_that_is_not_there(method, autojump_clock):
    line, headers, _ = await sent_for({"url": RAW_URL, "method": method})
    assert line.startswith(method.encode())
    assert b"content-length" not in dict(headers)


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "QUERY"])
async def test_a_body_goes_with_any_method(method, autojump_clock):
    _, headers, body = await sent_for({"url": RAW_URL, "method": method, "body": {"b": 1, "a": []}})
    assert (headers[-1], body) == ((b"content-length", b"14"), b'{"a":[],"b":1}')


async def test_native_requests_keep_repeats_and_bytes(autojump_clock):
    data = bytes(range(256)) * 1000
    payload = native_payload(
        RAW_URL, "POST", headers=[("A", "1"), ("b", "2"), ("a", "3")], body=data
    )
    line, headers, body = await sent_for(payload, **NATIVE)
    assert line == b"POST / HTTP/1.1"
    assert headers[:3] == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert headers[-1] == (b"content-length", b"%d" % len(data))
    assert body == data


async def test_the_operation_name_and_an_empty_tenant_do_not_matter(autojump_clock):
    async with running() as runtime:
        answer = await runtime.http({"url": f"{ORIGIN}/small"}, operation="x", tenant_id="")
        assert json_of(answer)["status_code"] == 200


# --- refused before anything is sent ------------------------------------------------------------


async def refused(runtime: Running, payload: object, **fields: Any) -> str:
    answer = await runtime.http(payload, **fields)
    assert answer.error_class is ErrorClass.INVALID_REQUEST
    assert answer.disposition is Disposition.NOT_SENT
    assert (answer.payload, answer.retry_after_ms, answer.attempts) == (None, 0, 0)
    return str(answer.error_message)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "Invalid HTTP params: Input data was truncated"),
        (b"[]", "Missing required field: url"),
        ({"method": "GET"}, "Missing required field: url"),
        ({"url": ""}, "Invalid URL: it is empty; expected http://host/... or https://host/..."),
        (
            {"url": "ftp://h/"},
            "Invalid URL: scheme 'ftp' is not supported; expected http or https",
        ),
        (
            {"url": f"{ORIGIN}/", "headers": {"a b": "c"}},
            "Invalid header name 'a b': expected letters, digits and !#$%&'*+-.^_`|~",
        ),
        (
            {"url": f"{ORIGIN}/", "headers": {"a": "b\r\nc: hunter2"}},
            "Invalid value of header 'a': CR, LF, NUL and control characters are not allowed",
        ),
        (
            {"url": f"{ORIGIN}/", "headers": {"Content-Length": "3"}, "body": "ab"},
            "Invalid header 'Content-Length': the body has 2 bytes; leave it out",
        ),
        (
            b'{"url":"http://h/","body":' + b"[" * 5000 + b"]" * 5000 + b"}",
            "Invalid HTTP params: arrays and objects are nested too deeply",
        ),
    ],
)
async def test_a_request_that_cannot_be_sent_never_leaves(payload, message, autojump_clock):
    async with running() as runtime:
        assert await refused(runtime, payload) == message
        assert runtime.upstream.events == []


async def test_an_idempotency_key_that_no_header_can_hold_is_refused(autojump_clock):
    async with running() as runtime:
        said = await refused(runtime, {"url": ORIGIN}, idempotency_key="a\r\nb")
        assert said.startswith("Invalid value of header 'idempotency-key'")


async def test_no_payload_at_all(autojump_clock):
    async with running() as runtime:
        assert await refused(runtime, b"") == "Invalid HTTP params: Input data was truncated"
        said = await refused(runtime, b"rubbish", **NATIVE)
        assert said.startswith("Invalid HTTP params: ")


async def test_an_unknown_connector_is_named(autojump_clock):
    async with running() as runtime:
        said = await refused(runtime, {}, connector_name="Http")
        known = "db, http, mysql, postgres, sql, sqlite, vastar"
        assert said == f"Unknown connector: Http; known are {known}"
        assert len(await refused(runtime, {}, connector_name="x" * 10_000)) < 300


# --- sent again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "fields", "headers", "again"),
    [
        ("GET", {}, {}, True),
        ("PUT", {}, {}, True),
        ("POST", {}, {}, False),
        ("PATCH", {}, {}, False),
        ("POST", {"idempotency_key": "k"}, {}, True),
        ("POST", {}, {"Idempotency-Key": "k"}, True),
        ("POST", {"idempotency_key": ""}, {}, False),
    ],
)
async def test_a_kept_connection_that_died_is_replaced_only_where_that_is_safe(
    method, fields, headers, again, autojump_clock
):
    """The upstream answers once, then takes one more request and closes without a word."""
    connections = 0

    async def once(channel: MemoryChannel) -> None:
        nonlocal connections
        connections += 1
        for number in range(2):
            data = b""
            while b"\r\n\r\n" not in data:
                piece = await channel.receive_some()
                if not piece:
                    return
                data += piece
            if number == 0:
                body = json.dumps({"connection": connections}).encode()
                await channel.send_buffers(
                    [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]
                )

    async with running() as runtime:
        runtime.network.handlers[RAW_PORT] = once
        payload = {"url": RAW_URL, "method": method, "headers": headers}
        first = json_of(await runtime.http(payload, **fields))
        assert json.loads(first["body"]) == {"connection": 1}
        second = await runtime.http(payload, **fields)
        if again:
            assert json.loads(json_of(second)["body"]) == {"connection": 2}
            assert second.attempts == 2
        else:
            assert second.error_class is ErrorClass.TRANSIENT
            assert second.disposition is Disposition.SENT_NO_RESPONSE
            assert connections == 1
