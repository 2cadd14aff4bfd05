"""A scripted runtime for the tests of connectors: no daemon, no network.

Shape: `FakeRuntime` answers calls from a list of replies or from a function, and records what
was asked. It speaks the real protocol, through the same sans-IO core as the real runtime, so what
a test proves is what goes over the wire. Two ways to reach it:

- in memory: `RuntimeClient(dial=fake.dial)` or `AsyncRuntimeClient(dial=fake.dial)`; no socket,
  and delays run on the clock of the loop, so on a virtual one they take no time;
- a Unix socket in a temporary directory: `with FakeRuntime(...) as fake:` and `fake.config`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgspec
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from vastar_client._fake_peer import FakePeer, HeldCall, Reply, read_call
from vastar_client._fake_streams import (
    HOLD,
    After,
    FakeStream,
    FakeUpload,
    Hold,
    Step,
    StreamReply,
    json_event,
)
from vastar_client._fake_transports import Listener, MemoryStream
from vastar_client._headers import Headers, HeaderTypes, header_pairs
from vastar_client.config import RuntimeConfig
from vastar_client.errors import ConnectorException, RuntimeUnavailable
from vastar_client.request import HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.wire import Disposition, ErrorClass, ExecuteRequest, HealthResponse
from vastar_client.wire.sse import SSEEvent

__all__ = [
    "HOLD",
    "After",
    "FakeRuntime",
    "FakeStream",
    "FakeUpload",
    "HeldCall",
    "respond",
    "respond_events",
    "respond_stream",
]


AnyReply: TypeAlias = Reply | After | Hold
Handler: TypeAlias = Callable[[Any], AnyReply]


def respond(
    status_code: int = 200,
    *,
    body: bytes | str = b"",
    json: object = None,
    headers: HeaderTypes | None = None,
    attempts: int = 1,
    refused_by: str | None = None,
    retry_after_ms: int = 0,
) -> HTTPResponse:
    """An HTTP answer for a script.

    Args:
        status_code: the HTTP status.
        body: bytes, or text as UTF-8.
        json: a value to send as JSON instead, with its content type.
        headers: a mapping, or pairs where a name repeats.
        attempts: how often the runtime says that it tried; this and what follows is only told.
        refused_by: the policy that refused a further attempt, such as `retry_quota:tenant`.
        retry_after_ms: when the runtime says to come back.
    """
    pairs = header_pairs(headers)
    if json is not None:
        body = msgspec.json.encode(json)
        if "content-type" not in Headers(pairs):
            pairs.append(("content-type", "application/json"))
    raw = body.encode() if isinstance(body, str) else body
    return HTTPResponse(
        0,
        status_code,
        Headers(pairs),
        raw,
        headers_list=pairs,
        attempts=attempts,
        refused_by=refused_by,
        retry_after_ms=retry_after_ms,
    )


def respond_stream(
    steps: Iterable[Step] = (),
    *,
    status_code: int = 200,
    headers: HeaderTypes | None = None,
    trailers: HeaderTypes | None = None,
    attempts: int = 1,
    refused_by: str | None = None,
    retry_after_ms: int = 0,
) -> StreamReply:
    """A streamed answer for a script.

    Args:
        steps: what comes, in order, as fast as the caller takes it; may be endless. Bytes or text
            is data; an `SSEEvent` is an event; `After(delay_s, step)` comes later; a
            `ConnectorException` ends the stream with that failure, without a head where it comes
            first; at `HOLD` it stays open and silent (`FakeStream.push` and `end` go on).
        status_code: the HTTP status.
        headers: a mapping, or pairs where a name repeats.
        trailers: fields behind the body.
        attempts: how often the runtime says that it tried; this and what follows is told at the
            end.
        refused_by: the policy that refused a further attempt, such as `retry_quota:tenant`.
        retry_after_ms: when the runtime says to come back.
    """
    return StreamReply(
        steps,
        status_code,
        header_pairs(headers),
        header_pairs(trailers),
        attempts,
        refused_by,
        retry_after_ms,
    )


def respond_events(steps: Iterable[Any], *, headers: HeaderTypes | None = None) -> StreamReply:
    """A stream of server-sent events for a script: text is the data of an event.

    Args:
        steps: as for `respond_stream`, but text is the data of one event, and any other value is
            data as JSON.
        headers: more header fields.
    """
    pairs = [("content-type", "text/event-stream"), *header_pairs(headers)]
    return StreamReply(_Events(steps), headers=pairs)


class _Events:
    """Steps as events, as often as there are those steps."""

    def __init__(self, steps: Iterable[Any]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Step]:
        return map(_as_event, self._steps)


def _as_event(step: Any) -> Step:
    if isinstance(step, After):
        return After(step.delay_s, _as_event(step.reply))
    if isinstance(step, bytes | SSEEvent | ConnectorException | Hold):
        return step
    return SSEEvent(step) if isinstance(step, str) else json_event(step)


class FakeRuntime:
    """A runtime that does as it is told.

    Args:
        replies: one reply for each call in turn, or a function from the request to its reply. A
            reply is an answer made by `respond`, `respond_stream` or `respond_events`, a
            `ConnectorException`, bytes (the raw payload of another connector),
            `After(delay_s, reply)` or `HOLD`. The function gets an `HTTPRequest`, or the
            `ExecuteRequest` where the connector is not `http`. A call of `stream()` may get any of
            them.
        keeps_deadlines: the attribute's first value.

    Attributes:
        requests: the HTTP requests so far.
        messages: every call as it came over the wire, with deadline and request id.
        cancelled: the ids of the calls that their callers cancelled.
        held: the calls that were answered with `HOLD`.
        health: what a health check is told.
        available: False makes it impossible to connect in memory.
        keeps_deadlines: whether a call that waits is answered TIMEOUT at its deadline, and a
            silent stream kept alive, as the runtime does; False is a runtime that is stuck.
        streams: the streamed answers so far, with what came of each.
        uploads: the bodies that came in pieces, as far as they came.
        waits_for_bodies: whether such a body has to be there before the call is answered; else
            the function sees a request without it.
        reads_bodies: whether more of one is taken than fits a window; False is an upstream that
            does not read.
    """

    def __init__(
        self, replies: Iterable[AnyReply] | Handler = (), *, keeps_deadlines: bool = True
    ) -> None:
        self.requests: list[HTTPRequest] = []
        self.messages: list[ExecuteRequest] = []
        self.cancelled: list[int] = []
        self.held: list[HeldCall] = []
        self.health = HealthResponse(healthy=True, message="fake", available_credits=256)
        self.available = True
        self.keeps_deadlines = keeps_deadlines
        self.streams: list[FakeStream] = []
        self.uploads: list[FakeUpload] = []
        self.waits_for_bodies = True
        self.reads_bodies = True
        self._handler = replies if callable(replies) else _Script(replies)
        self._peers: list[FakePeer] = []
        self._listener: Listener | None = None

    # What the peers call

    def serve(self, call: HeldCall) -> None:
        """Answer one call, or wait for its body."""
        self.messages.append(call.message)
        try:
            call.request = read_call(call.message)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller wrote it
            why = f"the request cannot be read: {error}"
            call.reply(ConnectorException(why, ErrorClass.INVALID_REQUEST))
            return
        if call.upload is not None:
            self.uploads.append(call.upload)
        waits = call.message.stream
        if call.upload is None or not self.waits_for_bodies:
            waits = self._answer(call) or waits
        else:
            waits = True
        if waits and self.keeps_deadlines and call.message.deadline_at_ms:
            self._end_at(call, call.message.deadline_at_ms / 1000 - time.time())

    def body_came(self, call: HeldCall) -> None:
        """All of the body of `call` is there."""
        if self.waits_for_bodies and call.upload is not None:
            if isinstance(call.request, HTTPRequest):
                call.request.body = bytes(call.upload.data)
            self._answer(call)

    def _answer(self, call: HeldCall) -> bool:
        """Answer `call` as the script says; whether that is to come yet."""
        if isinstance(call.request, HTTPRequest):
            self.requests.append(call.request)
        reply = self._reply_to(call.request)
        if isinstance(reply, Hold):
            self.held.append(call)
            return True
        if isinstance(reply, After) and reply.delay_s > 0:
            call.peer.answer(call, reply.reply, reply.delay_s)
            return True
        call.reply(reply.reply if isinstance(reply, After) else reply)
        return False

    def _reply_to(self, request: HTTPRequest | ExecuteRequest) -> AnyReply:
        try:
            reply = self._handler(request)
        except Exception as error:  # noqa: BLE001  # a mistake in a test must not hang it
            return _mistake(f"raised {error!r}")
        inner: object = reply.reply if isinstance(reply, After) else reply
        if not isinstance(inner, HTTPResponse | ConnectorException | bytes | StreamReply | Hold):
            return _mistake(f"gave {type(inner).__name__}, which is no reply")
        return reply

    def _end_at(self, call: HeldCall, left_s: float) -> None:
        why = ConnectorException(
            "timed out: the deadline_at_ms passed while the FakeRuntime held the call",
            ErrorClass.TIMEOUT,
            disposition=Disposition.SENT_NO_RESPONSE,
        )
        call.peer.end(call, why, max(0.0, left_s), before=lambda: self._let_go(call))

    def _let_go(self, call: HeldCall) -> None:
        with suppress(ValueError):  # it was none of them, or the test has taken it out
            self.held.remove(call)

    def cancel(self, call: HeldCall | None, request_id: int) -> None:
        """Note a cancellation; the call ends with the final frame that is due."""
        self.cancelled.append(request_id)
        if call is not None:
            self._let_go(call)
            why = ConnectorException(
                "cancelled by caller",
                ErrorClass.PERMANENT,
                disposition=Disposition.SENT_NO_RESPONSE,
            )
            call.peer.end(call, why)

    # How clients reach it

    async def dial(self) -> ByteStream:
        """A connection in memory, as the `dial` argument of either client.

        Raises:
            RuntimeUnavailable: `available` is False.
        """
        await checkpoint()
        if not self.available:
            raise RuntimeUnavailable(
                "the fake runtime is switched off", disposition=Disposition.NOT_SENT
            )
        stream = MemoryStream(self)
        self._peers.append(stream.peer)
        return stream

    @property
    def config(self) -> RuntimeConfig:
        """A configuration for the Unix socket; only inside the `with` block."""
        if self._listener is None:
            raise RuntimeError("a FakeRuntime has a socket inside its `with` block only")
        return RuntimeConfig(socket_path=str(self._listener.path), use_environment=False)

    def disconnect(self) -> None:
        """End every connection, as a restart of the runtime does."""
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.hang_up()

    def __enter__(self) -> Self:
        self._listener = Listener(self, self._peers.append)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            self.disconnect()
            listener.join()


def _mistake(what: str) -> ConnectorException:
    return ConnectorException(f"the handler of the FakeRuntime {what}", ErrorClass.PERMANENT)


class _Script:
    """Replies in turn."""

    def __init__(self, replies: Iterable[AnyReply]) -> None:
        self._replies = iter(replies)

    def __call__(self, request: HTTPRequest | ExecuteRequest) -> AnyReply:
        for reply in self._replies:
            return reply
        return ConnectorException(
            f"FakeRuntime has no reply left for {request!r}", ErrorClass.PERMANENT
        )
