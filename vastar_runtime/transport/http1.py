"""One HTTP/1.1 connection: requests out, responses in, one exchange at a time.

The whole request usually fits into the socket at once, so nothing runs beside anything: write, then
read. Only when the socket is full does the connection listen while it sends, as the upstream may
answer early and stop reading (RFC 9112, 9.3 and 9.5): then the answer counts, not the broken pipe.

Reading happens only when the caller asks: a slow caller slows its upstream through TCP.
"""

from collections.abc import Sequence

import trio

from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.errors import InvalidResponse, TransportError, fault_kind, reason
from vastar_runtime.transport.messages import Buffer, Headers, Origin, UpstreamRequest
from vastar_runtime.transport.parser import ResponseParser
from vastar_runtime.transport.progress import Phase, Progress

__all__ = ["Http1Connection"]

_DIRECT_SEND_BYTES = 65536
"""So much goes unheard into a stream that cannot be tried: systems buffer as much."""
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
        "_must_close",
        "_origin",
        "_progress",
        "_send_failure",
        "_sent_at_s",
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
        self._broken: TransportError | None = None
        self._must_close = False
        self._sent_at_s = 0.0

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

        Raises:
            TransportError: no response head could be had.
        """
        self._progress = progress
        parser = self.parser
        parser.begin(request.method)
        await self._send(self._encode(request))
        if self._send_failure is None:
            progress.phase = Phase.HEAD
        while not parser.head_complete:
            await self._pull()

    def _encode(self, request: UpstreamRequest) -> list[Buffer]:
        lines = [b"%b %b%b HTTP/1.1" % (request.method, self._target_prefix, request.target)]
        lines += [b"%b: %b" % header for header in request.headers]
        lines += [b"%b: %b" % header for header in self._extra_headers]
        body = request.body
        if body is None:
            buffers: list[Buffer] = []
            if request.method in _EXPECT_BODY:  # RFC 9110, 8.6
                lines.append(b"content-length: 0")
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

    async def _send_listening(self, buffers: Sequence[Buffer]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_rest, buffers, nursery.cancel_scope)
            await self._listen()
            nursery.cancel_scope.cancel()
        if not self._progress.request_sent:
            self._must_close = True

    async def _send_rest(self, buffers: Sequence[Buffer], listening: trio.CancelScope) -> None:
        try:
            await self.channel.send_buffers(buffers)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._send_failure = error  # an answer that is still on its way counts more: listen on
        else:
            self._progress.request_sent = True
            listening.cancel()

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
        progress = self._progress
        parser = self.parser
        try:
            data = await self.channel.receive_some()
            if data:
                if not progress.response_started:
                    progress.response_started = True
                    waited_s = trio.current_time() - self._sent_at_s
                    progress.first_byte_us = round(waited_s * 1e6)
                parser.feed(data)
            else:
                self._must_close = True
                parser.feed_eof()
            progress.completed = parser.complete
        except (trio.BrokenResourceError, trio.ClosedResourceError, InvalidResponse) as error:
            self._must_close = True
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
