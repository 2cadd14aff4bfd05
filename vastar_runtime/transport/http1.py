"""One HTTP/1.1 connection: requests out, responses in, one exchange at a time.

The whole request usually fits into the socket at once, so nothing runs beside anything: write, then
read. Only when the socket is full does the connection listen while it sends, as the upstream may
answer early and stop reading (RFC 9112, 9.3 and 9.5): then the answer counts, not the broken pipe.

A body that is still being made is read piece by piece, each when the channel has taken the one
before, and the connection listens all the while. Its last piece waits until the source has told
that it is the last: a body of another length than declared never looks whole to the upstream.

Reading happens only when the caller asks: a slow caller slows its upstream through TCP.
"""

from collections.abc import Sequence

import trio

from vastar_runtime.transport.channel import RECEIVE_BYTES, Channel
from vastar_runtime.transport.errors import (
    InvalidResponse,
    LocalFault,
    TransportError,
    fault_kind,
    reason,
)
from vastar_runtime.transport.framing import Framing, framing_for
from vastar_runtime.transport.messages import (
    BodySource,
    Buffer,
    Headers,
    Origin,
    UpstreamRequest,
    rewind,
)
from vastar_runtime.transport.parser import ResponseParser
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["Http1Connection"]

_DIRECT_SEND_BYTES = 65536
"""So much goes unheard into a stream that cannot be tried: systems buffer as much."""
_LONG_RECEIVE_BYTES = 262_144
"""Asked for at a time once a body has filled the usual size: fewer turns for the same bytes."""
_TURN_PIECES = 4096
"""Parsed before others get a turn: of chunks, their number costs time and not their bytes. Half a
millisecond, or two for the longest that is received at a time."""
_EARLY_BODY_BYTES = 1024 * 1024
"""So much of a response is read while its request is still being sent."""
_STOP_SENDING_FROM = 300
"""An answer from here up does not want the rest of the request (curl draws the same line)."""
_FRAMING = {b"content-length", b"transfer-encoding"}
_EXPECT_BODY = {b"POST", b"PUT", b"PATCH"}


class Http1Connection:
    """A channel that speaks HTTP/1.1 to one origin.

    Args:
        channel: connected, and through TLS where that applies. The connection owns it.
        origin: whom the errors name.
        head_limit_bytes: bound on a response head.
        target_prefix: `http://host:port` where a proxy wants the absolute form, else empty.
        extra_headers: for a proxy; sent with each request.
        now_s: when it was opened.
    """

    __slots__ = (
        "_broken",
        "_extra_headers",
        "_last_head",
        "_last_request",
        "_must_close",
        "_origin",
        "_pieces_parsed",
        "_progress",
        "_receive_bytes",
        "_send_failure",
        "_sent_at_s",
        "_source_failure",
        "_target_prefix",
        "channel",
        "created_at_s",
        "parser",
    )

    def __init__(
        self,
        channel: Channel,
        origin: Origin,
        *,
        head_limit_bytes: int,
        now_s: float,
        target_prefix: bytes = b"",
        extra_headers: Headers | None = None,
    ) -> None:
        self.channel = channel
        self.parser = ResponseParser(head_limit_bytes)
        self.created_at_s = now_s
        self._origin = origin
        self._target_prefix = target_prefix
        self._extra_headers = extra_headers or []
        self._progress = Progress()
        self._send_failure: Exception | None = None
        self._source_failure: LocalFault | None = None
        self._broken: TransportError | None = None
        self._must_close = False
        self._sent_at_s = 0.0
        self._receive_bytes = RECEIVE_BYTES
        self._pieces_parsed = 0
        self._last_request: UpstreamRequest | None = None
        self._last_head: Sequence[Buffer] = ()

    @property
    def reusable(self) -> bool:
        """Whether, after a complete response, another request may be sent."""
        parser = self.parser
        return parser.complete and parser.keep_alive and not parser.excess and not self._must_close

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.channel.abort()
        self.parser.let_go()

    async def exchange(self, request: UpstreamRequest, progress: Progress) -> None:
        """Send the request and read until the head of its response is complete.

        Cancelled or failed, the connection is of no more use.

        A body that was read before is begun again. Of a source some may be left unread.

        Raises:
            TransportError: no response head could be had, or the body's source has failed.
        """
        self._progress = progress
        parser = self.parser
        parser.begin(request.method)
        self._receive_bytes = RECEIVE_BYTES
        body = request.body
        if body is not None and isinstance(body, BodySource):
            await self._send_source(self._encode(request), body)
        else:
            await self._send(self._encode(request))
        if self._send_failure is None:
            progress.phase = Phase.HEAD
        while not parser.head_complete:
            await self._pull()

    def _encode(self, request: UpstreamRequest) -> Sequence[Buffer]:
        """The bytes of `request`, without a body that is still being made."""
        if request is self._last_request:
            return self._last_head
        buffers = self._encode_anew(request)
        if request.body is None:
            # A request without a body is the same object for calls that ask the same.
            self._last_request, self._last_head = request, buffers
        return buffers

    def _encode_anew(self, request: UpstreamRequest) -> list[Buffer]:
        lines = [b"%b %b%b HTTP/1.1" % (request.method, self._target_prefix, request.target)]
        lines += [b"%b: %b" % header for header in request.headers]
        lines += [b"%b: %b" % header for header in self._extra_headers]
        body = request.body
        if body is None:
            buffers: list[Buffer] = []
            if request.method in _EXPECT_BODY:  # RFC 9110, 8.6
                lines.append(b"content-length: 0")
        elif isinstance(body, BodySource):
            buffers = []
            lines.append(
                b"transfer-encoding: chunked"
                if body.length_bytes is None
                else b"content-length: %d" % body.length_bytes
            )
        else:
            buffers = [body] if isinstance(body, bytes | bytearray | memoryview) else [*body]
            lines.append(b"content-length: %d" % sum(map(len, buffers)))
        lines.append(b"\r\n")
        buffers.insert(0, b"\r\n".join(lines))
        return buffers

    async def _send(self, buffers: Sequence[Buffer]) -> None:
        progress = self._progress
        progress.phase = Phase.SEND
        self._sent_at_s = trio.current_time()
        try:
            rest = self.channel.try_send(buffers)
        except trio.BrokenResourceError as error:
            # An idle connection that died, or an upstream that answered unasked (408) and left.
            self._send_failure = error
            return
        progress.request_begun = True
        try:
            if rest is None and sum(map(len, buffers)) <= _DIRECT_SEND_BYTES:
                await self.channel.send_buffers(buffers)
            elif rest is None or rest:
                await self._send_listening(buffers if rest is None else rest)
                return
        except trio.BrokenResourceError as error:
            self._send_failure = error
            return
        except trio.ClosedResourceError as error:
            raise self._error(error) from error
        progress.request_sent = True

    async def _send_source(self, head: Sequence[Buffer], body: BodySource) -> None:
        progress = self._progress
        progress.phase = Phase.SEND
        if not rewind(body):
            raise self._error(LocalFault("the request body cannot be sent again"))
        self._sent_at_s = trio.current_time()
        try:
            rest = self.channel.try_send(head)
        except trio.BrokenResourceError as error:
            self._send_failure = error  # as in `_send`; nothing of the body was read
            return
        progress.request_begun = True
        await self._send_listening(head if rest is None else rest, body)

    async def _send_listening(
        self, buffers: Sequence[Buffer], body: BodySource | None = None
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_rest, buffers, body, nursery.cancel_scope)
            await self._listen()
            nursery.cancel_scope.cancel()
        if not self._progress.request_sent:
            self._must_close = True
        if self._source_failure is not None:
            raise self._error(self._source_failure) from self._source_failure

    async def _send_rest(
        self, buffers: Sequence[Buffer], body: BodySource | None, listening: trio.CancelScope
    ) -> None:
        try:
            if buffers:
                await self.channel.send_buffers(buffers)
            if body is not None:
                framing = framing_for(body.length_bytes)
                while await self._send_piece(body, framing):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._send_failure = error  # an answer that is still on its way counts more: listen on
        except LocalFault as error:
            self._source_failure = error
            listening.cancel()
        else:
            self._progress.request_sent = True
            listening.cancel()

    async def _send_piece(self, body: BodySource, framing: Framing) -> bool:
        """Send the next piece, whether there was one. Nothing refers to it while the next is made.

        Raises:
            LocalFault: the source gave up, or is not as long as it said.
        """
        piece = await body.read_some()
        buffers = framing.frame(piece)
        if buffers:
            await self.channel.send_buffers(buffers)
        return bool(piece)

    async def _listen(self) -> None:
        """Read while the request is being sent; return when sending on is of no use."""
        parser = self.parser
        try:
            while not (parser.head_complete and parser.status >= _STOP_SENDING_FROM):
                if parser.complete:
                    return
                if parser.body_bytes >= _EARLY_BODY_BYTES:
                    await trio.sleep_forever()  # until the request is sent
                await self._pull()
        except TransportError:
            return  # the next pull raises it again

    async def _pull(self) -> None:
        """Receive once and parse. A failure is remembered: every later pull raises it too."""
        if self._broken is not None:
            raise self._broken
        if self._pieces_parsed >= _TURN_PIECES:
            self._pieces_parsed = 0
            await trio.lowlevel.checkpoint()
        progress = self._progress
        parser = self.parser
        try:
            data = await self.channel.receive_some(self._receive_bytes)
            if data:
                if not progress.response_started:
                    progress.response_started = True
                    waited_s = trio.current_time() - self._sent_at_s
                    progress.first_byte_us = round(waited_s * 1e6)
                pieces_before = len(parser.body)
                parser.feed(data)
                pieces = len(parser.body) - pieces_before
                self._pieces_parsed += pieces
                if pieces >= _TURN_PIECES:
                    self._receive_bytes = RECEIVE_BYTES
                elif len(data) == RECEIVE_BYTES:
                    self._receive_bytes = _LONG_RECEIVE_BYTES
            else:
                self._must_close = True
                parser.feed_eof()
            progress.completed = parser.complete
        except (trio.BrokenResourceError, trio.ClosedResourceError, InvalidResponse) as error:
            self._must_close = True
            if parser.broke_in_body:
                progress.phase = Phase.BODY  # perhaps it came together with the head
            cause: Exception = error
            if self._send_failure is not None and not progress.response_started:
                cause = self._send_failure  # the better reason
            self._broken = self._error(cause)
            raise self._broken from cause

    def _error(self, cause: Exception) -> TransportError:
        progress = self._progress
        kind = fault_kind(cause, progress.phase)
        return TransportError.at(progress, self._origin.address, reason(cause), kind=kind)

    async def read_more(self) -> None:
        """Receive once more; what there is of the body then is in `parser.body`.

        Only while the response is not complete.

        Raises:
            TransportError: the body cannot be had whole; pieces received before the fault are in
                `parser.body` all the same.
        """
        self._progress.phase = Phase.BODY
        await self._pull()
