"""Level 3: messages that every reader understands, with values that nobody should believe."""

import json
from typing import Final

from hypothesis import strategies as st

from vastar_client.wire import (
    Authenticate,
    Cancel,
    CreditUpdate,
    ExecuteRequest,
    HealthCheck,
    HttpRequest,
    Message,
    PayloadFormat,
    RequestChunk,
    encode_http_request,
)
from vastar_client.wire.codec import encode_message
from vastar_client.wire.enums import ResponseFormat

__all__ = [
    "DEADLINES_MS",
    "REQUEST_IDS",
    "chunks",
    "credits_of",
    "frame_of",
    "http_request",
    "ids",
    "other_messages",
    "requests",
]

REQUEST_IDS: Final = (1, 2, 3, 2**32, 2**53 + 1, 2**63, 2**64 - 1)
"""Few, so that they are used again; some that a float or a signed number cannot hold."""

DEADLINES_MS: Final = (0, 1, 1_000, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
"""None, 1970, and so far that seconds overflow; none is near, so that a replay means the same."""

_TEXTS: Final = ("", "a", "größe", "日本", "\N{GRINNING FACE}", "nul\0", "line\r\nx: y", "é" * 200)
_CONNECTORS: Final = ("db", "postgres", "mysql", "DB", "", "no such", "http ", "x" * 5_000, "\0")


def frame_of(message: Message) -> bytes:
    """The whole frame of `message`, whoever may send it."""
    flatbuffer = b"".join(map(bytes, encode_message(message)))
    return (len(flatbuffer) + 1).to_bytes(4) + bytes((message.TYPE,)) + flatbuffer


def ids(*, with_zero: bool = True) -> st.SearchStrategy[int]:
    """Ids of requests: mostly few that come again, else any."""
    some = st.sampled_from(REQUEST_IDS)
    every = st.integers(0 if with_zero else 1, 2**64 - 1)
    return some | some | some | (every | st.just(0) if with_zero else every)


def _headers() -> st.SearchStrategy[list[tuple[str, str]] | None]:
    """Pairs beside the payload: none, hostile ones, four thousand, or one of 100 kB."""
    pair = st.tuples(st.sampled_from(_TEXTS), st.sampled_from(_TEXTS))
    return (
        st.none()
        | st.none()
        | st.lists(pair, max_size=5)
        | st.sampled_from(([("k", "v")] * 4_000, [("k" * 100, "v" * 100_000)]))
    )


def requests(*, is_base: bool = False) -> st.SearchStrategy[Message]:
    """Calls of connectors that reach no network, with hostile values.

    Args:
        is_base: without the fields and forms that the published protocol does not have.
    """
    text = st.sampled_from(_TEXTS) | st.text(max_size=20)
    extra = {
        "stream": st.booleans(),
        "payload_format": st.sampled_from(PayloadFormat),
        "response_format": st.sampled_from(ResponseFormat),
        "idempotency_key": st.none() | text,
    }
    return st.builds(
        ExecuteRequest,
        ids(),
        st.sampled_from(("acme", "", "t" * 1_025)) | text,
        st.sampled_from(("db",) * 4 + _CONNECTORS),
        st.sampled_from(("request", "", "x" * 2_000)),
        workspace_id=st.none() | text,
        trace_id=st.none() | text | st.just("t" * 5_000),
        deadline_at_ms=st.sampled_from((0, *DEADLINES_MS)),
        payload=st.none() | st.binary(max_size=100) | st.just(b"{" * 5_000),
        headers=_headers(),
        **({} if is_base else extra),
    )


def http_request(
    request_id: int,
    url: str,
    *,
    stream: bool = False,
    native: bool = False,
    timeout_ms: int = 0,
    deadline_at_ms: int = 0,
    body_follows: bool = False,
    method: str | None = None,
    tenant_id: str = "acme",
) -> ExecuteRequest:
    """A sound call of connector `http`; without `method` a GET, or a POST where a body follows."""
    method = method or ("POST" if body_follows else "GET")
    if native:
        value = HttpRequest(url, method, timeout_ms=timeout_ms)
        payload = b"".join(map(bytes, encode_http_request(value)))
    else:
        fields = {"url": url, "method": method, "timeout_ms": timeout_ms}
        payload = json.dumps({n: v for n, v in fields.items() if v}).encode()
    return ExecuteRequest(
        request_id,
        tenant_id,
        "http",
        "request",
        payload=payload,
        stream=stream,
        payload_format=PayloadFormat.NATIVE if native else PayloadFormat.JSON,
        deadline_at_ms=deadline_at_ms,
        body_follows=body_follows,
    )


def credits_of(request_ids: st.SearchStrategy[int]) -> st.SearchStrategy[CreditUpdate]:
    """Credit: for requests, for streams and the connection; nothing, much, too much, negative."""
    return st.builds(
        CreditUpdate,
        st.sampled_from((0, 1, 1_000, 65_536, 65_536, 2**31 - 1, -1, -(2**31))),
        st.sampled_from((0, 1, 2**32 - 1)),
        request_ids | st.just(0),
        st.sampled_from((0, 0, 0, 1, 65_536, 2**20, 2**31 - 1, 2**31, -1, -(2**63), 2**63 - 1)),
    )


def chunks(request_ids: st.SearchStrategy[int]) -> st.SearchStrategy[RequestChunk]:
    """Pieces of bodies: of no call, out of order, empty, behind the last, too large."""
    return st.builds(
        RequestChunk,
        request_ids,
        st.sampled_from((0, 0, 1, 2, 2**32 - 1)),
        st.sampled_from((None, b"", b"x", b"y" * 1_000, b"z" * 65_536, b"z" * 65_537)),
        last=st.booleans(),
    )


def other_messages(request_ids: st.SearchStrategy[int]) -> st.SearchStrategy[Message]:
    """Everything but calls that a caller may send; cancels of unknown and finished ids too."""
    return st.one_of(
        st.just(HealthCheck()),
        st.builds(Cancel, request_ids),
        st.builds(Cancel, ids()),
        st.builds(Authenticate, st.none() | st.sampled_from(("", "guess", "x" * 9_000))),
        credits_of(request_ids),
        chunks(request_ids),
    )
