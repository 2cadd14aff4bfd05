"""Calls of hostile methods, URLs and headers: refused in our words, or exactly one request.

Input: the call, choice by choice. What the HTTP connector and the transport make of it is read by
h11's server: one request must come out, with the method, target, headers and body that were asked
for, and nothing behind it (no smuggling, whatever is in the parts).
"""

import json
from base64 import b64encode
from types import SimpleNamespace
from typing import Any, Final, cast

import h11

from tools.fuzz.targets._inputs import Input
from vastar_client.wire import ExecuteRequest, HttpRequest, PayloadFormat, encode_http_request
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.preparing import Preparer
from vastar_runtime.connectors.http.target import resolve_location
from vastar_runtime.transport.http1 import Http1Connection
from vastar_runtime.transport.messages import UpstreamRequest

__all__ = ["check"]

_METHODS: Final = ("GET", "POST", "head", "PUT", "DELETE", "OPTIONS", "CONNECT", "GET ", "G\nT")
_URLS: Final = ("http://a.test", "https://a.test:8443", "http://[::1]:80", "http://u:p@a.test", "")
_PATHS: Final = ("/", "/a?b=c", "*", "//b.test/", "/%0d%0aX: 1", "/\u00e9 x", "#f", "\\", "/..;/")
_NAMES: Final = (
    *(
        "X-A",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "Expect",
        "TE",
    ),
    *("Content-Type", "Authorization", "Accept-Encoding", "Idempotency-Key", "traceparent", "X A"),
    *("X\r\nY", "", "X:", "\u0130", "transfer_encoding", "Keep-Alive", "Trailer", "Cookie", "x-\0"),
)
_VALUES: Final = (
    *("1", "", "chunked", "5", "0", "5, 5", "close", "a\r\nX: 1", "a\nb", "a\rb", "\0", "\t v\t"),
    *(
        "\u00e9",
        "\x7f",
        "a\r\n\r\nGET / HTTP/1.1\r\n",
        "100-continue",
        "b.test",
        "b.test:99",
        "\x85",
    ),
)
_MOST_HEADERS: Final = 6
_OWN_CHOICE: Final = 200
_PREFIX: Final = b"http://proxy.target:80"


def check(data: bytes) -> bool:
    """Make one call; whether it became a request.

    Raises:
        AssertionError: it became something else than one request, or another one.
    """
    source = Input(data)
    body = source.blob() if source.chance() else None
    payload, payload_format = _payload(source, body)
    message = ExecuteRequest(
        1,
        "t",
        "http",
        "request",
        payload=payload,
        payload_format=payload_format,
        trace_id=_chosen(source, ("", "4bf92f3577b34da6a3ce929d0e0e4736", "x\r\ny")) or None,
        idempotency_key=_chosen(source, ("", "key", "k\r\nX: 1")) or None,
    )
    call = SimpleNamespace(request=message, upload=None)
    try:
        plan, request = Preparer("gzip", lambda: 7).prepare(cast("Any", call))
    except InvalidCall:
        return False
    _assert_one_request(request, body or b"", _PREFIX if source.chance() else b"")
    located = resolve_location(plan.target, source.rest())
    if located is not None:
        onward = UpstreamRequest(
            method=b"GET",
            origin=located.origin,
            target=located.path_and_query,
            headers=[(b"host", located.origin.authority.encode())],
        )
        _assert_one_request(onward, b"", b"")
    return True


def _chosen(source: Input, usual: tuple[str, ...]) -> str:
    """One of the usual ones, or any text."""
    number = source.number()
    return source.text() if number >= _OWN_CHOICE else usual[number % len(usual)]


def _payload(source: Input, body: bytes | None) -> tuple[bytes, PayloadFormat]:
    method, url = _chosen(source, _METHODS), _chosen(source, _URLS) + _chosen(source, _PATHS)
    headers = [
        (_chosen(source, _NAMES), _chosen(source, _VALUES))
        for _ in range(source.number() % _MOST_HEADERS)
    ]
    if source.chance():
        asked = HttpRequest(method=method, url=url, headers=headers, body=body)
        return b"".join(encode_http_request(asked)), PayloadFormat.NATIVE
    fields: dict[str, Any] = {"method": method, "url": url, "headers": dict(headers)}
    if body is not None:
        fields["body_base64"] = b64encode(body).decode()
    return json.dumps(fields, ensure_ascii=False).encode(), PayloadFormat.JSON


def _assert_one_request(request: UpstreamRequest, body: bytes, prefix: bytes) -> None:
    channel = cast("Any", None)  # it only encodes
    connection = Http1Connection(
        channel, request.origin, head_limit_bytes=65536, now_s=0.0, target_prefix=prefix
    )
    wire = b"".join(connection._encode(request))  # noqa: SLF001 - sending costs a run of Trio
    server = h11.Connection(h11.SERVER)
    server.receive_data(wire)
    head = server.next_event()
    assert isinstance(head, h11.Request), (head, wire)
    assert head.method == request.method, wire
    assert head.target == prefix + request.target, wire
    names = [name for name, _ in head.headers]
    assert names.count(b"host") == 1, wire
    assert names.count(b"content-length") == (bool(body) or b"content-length" in names), wire
    assert b"transfer-encoding" not in names, wire
    asked = [pair for pair in head.headers if pair[0] != b"content-length"]
    assert asked == [(name, value) for name, value in request.headers], (asked, wire)
    received = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), (event, wire)
        received += event.data
    assert received == body, wire
    assert server.trailing_data == (b"", False), wire
