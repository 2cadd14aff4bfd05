"""Requests as messages: ids, deadlines, payloads, and where a body comes from that is not in them.

Shape: everything here is built before anything is sent, so what fails here is the caller's mistake
and nothing was sent. A body travels inside its message where it can, since the runtime can then
send it again; a file, an iterator, and what is too long for a frame goes in pieces behind it.
"""

import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vastar_client import _payload
from vastar_client._bodies import BytesSource, Source, source_of
from vastar_client._headers import is_named
from vastar_client.config import RuntimeConfig, check_timeout_ms
from vastar_client.request import HTTPRequest
from vastar_client.wire import Buffer, ExecuteRequest, PayloadFormat
from vastar_client.wire.limits import MAX_REQUEST_FRAME_BYTES

__all__ = ["CallMaker", "Outgoing", "has_short_body"]

_MAX_BODY_BYTES: Final = MAX_REQUEST_FRAME_BYTES - 1_048_576
"""Longest body inside a message: what is left of the frame holds the URL and the headers."""

_BODY_TIMEOUT_MS: Final = 600_000
"""What a body in pieces gets at least where nobody named a deadline: as long as streams have."""
_SURELY_FITS: Final = _MAX_BODY_BYTES // 4
"""Characters, or bytes: no character has more than 4 of them."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call that can be sent.

    Attributes:
        timeout_s: until its deadline; None for a stream that has none.
        source: brings the body, where it is not in the message.
    """

    message: ExecuteRequest
    timeout_s: float | None
    source: Source | None = None


class CallMaker:
    """Makes the calls of one client.

    Args:
        config: the defaults of the calls.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._ids = itertools.count(secrets.randbits(31) << 32 | 1)

    def call(
        self,
        connector: str,
        operation: str,
        payload: Buffer | Sequence[Buffer],
        payload_format: PayloadFormat,
        *,
        timeout_ms: int | None,
        tenant_id: str | None,
        workspace_id: str | None,
        trace_id: str | None,
        idempotency_key: str | None,
        stream: bool = False,
        source: Source | None = None,
    ) -> Outgoing:
        """One call, its time running from now.

        Raises:
            TypeError, ValueError: a field is of the wrong type, or the timeout is none.
        """
        if timeout_ms is None and not stream:
            timeout_ms = self._config.timeout_ms
            if source is not None:
                timeout_ms = max(timeout_ms, _BODY_TIMEOUT_MS)
        deadline_at_ms = 0
        if timeout_ms is not None:
            check_timeout_ms("timeout_ms", timeout_ms)
            deadline_at_ms = int(time.time() * 1000) + timeout_ms
        config = self._config
        message = ExecuteRequest(
            request_id=next(self._ids),
            tenant_id=_text("tenant_id", config.tenant_id if tenant_id is None else tenant_id),
            workspace_id=_text("workspace_id", workspace_id or config.workspace_id) or None,
            trace_id=None if trace_id is None else _text("trace_id", trace_id),
            connector_name=_text("connector", connector),
            operation=_text("operation", operation),
            deadline_at_ms=deadline_at_ms,
            payload=payload,
            stream=stream,
            payload_format=payload_format,
            idempotency_key=(
                None if idempotency_key is None else _text("idempotency_key", idempotency_key)
            ),
            body_follows=source is not None,
        )
        return Outgoing(message, None if timeout_ms is None else timeout_ms / 1000, source)

    def json_call(
        self,
        connector: str,
        operation: str,
        payload: object,
        *,
        timeout_ms: int | None,
        tenant_id: str | None,
        workspace_id: str | None,
        trace_id: str | None,
        idempotency_key: str | None,
    ) -> Outgoing:
        """One call with a JSON payload: bytes or text as they are, anything else written as JSON.

        Raises:
            TypeError, ValueError: as `call`, and for a payload that JSON cannot say.
        """
        return self.call(
            connector,
            operation,
            _payload.payload_bytes({} if payload is None else payload),
            PayloadFormat.JSON,
            timeout_ms=timeout_ms,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
        )

    def http(self, request: HTTPRequest, *, stream: bool = False) -> Outgoing:
        """One HTTP call.

        Args:
            request: what is asked.
            stream: whether the answer shall come as a stream; without a timeout of its own the
                call has no deadline then.

        Raises:
            TypeError, ValueError: as `call`, and for a body that was used up.
            ConnectorException: INVALID_REQUEST: it cannot be written, or the published protocol,
                which this client was told to speak, has no such thing.
        """
        payload_format = self._config.payload_format
        source = None
        if isinstance(request, HTTPRequest):
            request, source = _split(request, native=payload_format == "native")
        if payload_format == "json" and (stream or source is not None):
            raise _payload.unsendable(
                ValueError("streams, of answers and of bodies, need payload_format='native'")
            )
        payload, written_as = _payload.http_request_payload(request, payload_format)
        return self.call(
            "http",
            "request",
            payload,
            written_as,
            timeout_ms=request.timeout_ms,
            tenant_id=request.tenant_id,
            workspace_id=request.workspace_id,
            trace_id=request.trace_id,
            idempotency_key=request.idempotency_key,
            stream=stream,
            source=source,
        )


def has_short_body(request: HTTPRequest) -> bool:
    """Whether the body of `request` surely travels inside its message. What is no request has."""
    body = getattr(request, "body", None)
    return body is None or (isinstance(body, bytes | str) and len(body) <= _SURELY_FITS)


def _split(request: HTTPRequest, *, native: bool) -> tuple[HTTPRequest, Source | None]:
    """`request` without the body that goes behind it, and the source of that; or as it is."""
    if has_short_body(request):
        return request, None
    streamed = request.streamed_body()
    source: Source
    if streamed is not None:
        source = source_of(streamed)
    else:
        body = request.body_bytes() if native else None
        if body is None or len(body) <= _MAX_BODY_BYTES:
            return request, None
        source = BytesSource(body)
    pairs = request.header_pairs()
    if source.length_bytes is not None and not is_named(pairs, "content-length"):
        # Else it would go upstream in chunks, which not every server takes.
        pairs.append(("content-length", str(source.length_bytes)))
    return replace(request, headers=pairs, body=None), source


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}: it must be str")
    return value
