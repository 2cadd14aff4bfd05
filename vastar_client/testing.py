"""A scripted runtime for the tests of connectors: no daemon, no network.

Shape: `FakeRuntime` answers calls from a list of replies or from a function, and records what
was asked. It speaks the real protocol, through the same sans-IO core as the real runtime, so what
a test proves is what goes over the wire. Two ways to reach it:

- in memory: `RuntimeClient(dial=fake.dial)` or `AsyncRuntimeClient(dial=fake.dial)`; no socket,
  and delays run on the clock of the loop, so on a virtual one they take no time;
- a Unix socket in a temporary directory: `with FakeRuntime(...) as fake:` and `fake.config`.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from vastar_client._fake_peer import FakePeer, HeldCall, Reply, read_call
from vastar_client._fake_transports import Listener, MemoryStream
from vastar_client._headers import Headers, HeaderTypes, header_pairs
from vastar_client.config import RuntimeConfig
from vastar_client.errors import ConnectorException, RuntimeUnavailable
from vastar_client.request import HTTPRequest
from vastar_client.response import HTTPResponse
from vastar_client.wire import Disposition, ErrorClass, ExecuteRequest, HealthResponse

__all__ = ["HOLD", "After", "FakeRuntime", "HeldCall", "respond"]


class _Hold:
    """The type of `HOLD`."""


HOLD: Final = _Hold()
"""A reply that is no reply: the call waits in `FakeRuntime.held`."""


@dataclass(frozen=True)
class After:
    """A reply that comes `delay_s` seconds later."""

    delay_s: float
    reply: Reply


AnyReply: TypeAlias = Reply | After | _Hold
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


class FakeRuntime:
    """A runtime that does as it is told.

    Args:
        replies: one reply for each call in turn, or a function from the request to its reply. A
            reply is an answer made by `respond`, a `ConnectorException`, bytes (the raw payload of
            another connector), `After(delay_s, reply)` or `HOLD`. The function gets an
            `HTTPRequest`, or the `ExecuteRequest` where the connector is not `http`.
        keeps_deadlines: the attribute's first value.

    Attributes:
        requests: the HTTP requests so far.
        messages: every call as it came over the wire, with deadline and request id.
        cancelled: the ids of the calls that their callers cancelled.
        held: the calls that were answered with `HOLD`.
        health: what a health check is told.
        available: False makes it impossible to connect in memory.
        keeps_deadlines: whether a call that waits is answered TIMEOUT at its deadline, as the
            runtime does; False is a runtime that is stuck.
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
        self._handler = replies if callable(replies) else _Script(replies)
        self._peers: list[FakePeer] = []
        self._listener: Listener | None = None

    # What the peers call

    def serve(self, peer: FakePeer, message: ExecuteRequest) -> None:
        """Answer one call."""
        self.messages.append(message)
        call = HeldCall(message, message, peer)
        try:
            call.request = read_call(message)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller wrote it
            why = f"the request cannot be read: {error}"
            call.reply(ConnectorException(why, ErrorClass.INVALID_REQUEST))
            return
        if isinstance(call.request, HTTPRequest):
            self.requests.append(call.request)
        reply = self._reply_to(call.request)
        if isinstance(reply, _Hold):
            self.held.append(call)
        elif isinstance(reply, After) and reply.delay_s > 0:
            peer.answer(call, reply.reply, reply.delay_s)
        else:
            call.reply(reply.reply if isinstance(reply, After) else reply)
            return
        peer.waiting[message.request_id] = call
        if self.keeps_deadlines and message.deadline_at_ms:
            left_s = message.deadline_at_ms / 1000 - time.time()
            peer.later(lambda: self._end_at_deadline(call), max(0.0, left_s))

    def _reply_to(self, request: HTTPRequest | ExecuteRequest) -> AnyReply:
        try:
            reply = self._handler(request)
        except Exception as error:  # noqa: BLE001  # a mistake in a test must not hang it
            return _mistake(f"raised {error!r}")
        inner: object = reply.reply if isinstance(reply, After) else reply
        if not isinstance(inner, HTTPResponse | ConnectorException | bytes | _Hold):
            return _mistake(f"gave {type(inner).__name__}, which is no reply")
        return reply

    def _end_at_deadline(self, call: HeldCall) -> bytes:
        self._let_go(call)
        return call.peer.frame(
            call,
            ConnectorException(
                "timed out: the deadline_at_ms passed while the FakeRuntime held the call",
                ErrorClass.TIMEOUT,
                disposition=Disposition.SENT_NO_RESPONSE,
            ),
        )

    def _let_go(self, call: HeldCall) -> None:
        with suppress(ValueError):  # it was none of them, or the test has taken it out
            self.held.remove(call)

    def cancel(self, call: HeldCall | None, request_id: int) -> None:
        """Note a cancellation; a call that waits ends with the final frame that is due."""
        self.cancelled.append(request_id)
        if call is not None:
            self._let_go(call)
            call.reply(
                ConnectorException(
                    "cancelled by caller",
                    ErrorClass.PERMANENT,
                    disposition=Disposition.SENT_NO_RESPONSE,
                )
            )

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
