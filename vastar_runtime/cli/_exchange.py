"""One call of a command: its body goes out, its answer comes in, both under credit.

Shape: `Exchange.run` turns a `Line` until the final frame is there. What comes is handed to a
`Taker`, which may take as long as it likes: credit is granted when it has taken a piece, so that a
slow terminal or a full pipe holds up this one stream, and nothing is kept here.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from vastar_client.wire import (
    Buffer,
    Cancel,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    KeyValues,
    Message,
    PayloadFormat,
    ProtocolError,
    RequestChunk,
    StreamChunk,
    StreamEnd,
    StreamStart,
    decode_http_response,
)
from vastar_client.wire.limits import (
    INITIAL_CONNECTION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
)
from vastar_client.wire.windows import GROWN_STREAM_WINDOW_BYTES, ReceiveWindow, SendWindow
from vastar_runtime.cli._line import ControlError, Line

__all__ = ["BodyFile", "Ending", "Exchange", "Taker"]

_TICK_S: Final = 0.2
_CANCEL_WITHIN_S: Final = 1.0
"""For the final frame behind a Cancel; it is only waited for to leave in order."""
_MAX_CHUNK_BYTES: Final = 65_536


class Taker(Protocol):
    """Where an answer goes."""

    def head(self, status_code: int, headers: KeyValues, http_version: str | None) -> None:
        """The answer begins."""

    def data(self, piece: Buffer) -> None:
        """A piece of its body; it may take its time."""

    def tick(self) -> None:
        """Some time has passed."""


@attrs.define
class BodyFile:
    """A request body that is read from a descriptor while it is sent.

    Attributes:
        fd: an open descriptor; it stays the caller's.
        left_bytes: how much of it, or None for all that comes.
    """

    fd: int
    left_bytes: int | None = None

    def read(self, most_bytes: int) -> tuple[bytes, bool]:
        """A piece, and whether it is the last one."""
        if self.left_bytes is None:
            data = os.read(self.fd, most_bytes)
            return data, not data
        data = os.read(self.fd, min(most_bytes, self.left_bytes))
        self.left_bytes -= len(data)
        return data, not data or not self.left_bytes


@attrs.frozen(kw_only=True)
class Ending:
    """What became of the call.

    Attributes:
        head_s, first_byte_s: since it was sent; None where they never came, and for an answer that
            comes as a whole.
        queued_us, backoff_us: microseconds of `duration_us`: in lines, between attempts.
        refused_by: `policy:scope` of the policy that refused, or refused a further attempt.
    """

    error_class: ErrorClass
    message: str | None
    disposition: Disposition
    attempts: int
    duration_us: int
    retry_after_ms: int
    status_code: int | None
    body_bytes: int
    total_s: float
    head_s: float | None = None
    first_byte_s: float | None = None
    queued_us: int = 0
    backoff_us: int = 0
    refused_by: str | None = None


class Exchange:
    """A call on a line of its own.

    Args:
        line: carries nothing else.
        request: the call.
        body: what follows it, where the request says so.
        taker: gets the answer.
        clock_s: seconds, for the timing.
    """

    def __init__(
        self,
        line: Line,
        request: ExecuteRequest,
        body: BodyFile | None,
        taker: Taker,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._request = request
        self._body = body
        self._taker = taker
        self._clock_s = clock_s
        self._sequence = 0
        self._may_send = SendWindow(INITIAL_STREAM_WINDOW_BYTES)
        self._all_may_send = SendWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._window = ReceiveWindow(INITIAL_STREAM_WINDOW_BYTES, GROWN_STREAM_WINDOW_BYTES)
        self._shared_window = ReceiveWindow(INITIAL_CONNECTION_WINDOW_BYTES)
        self._began_s = 0.0
        self._head_s: float | None = None
        self._first_byte_s: float | None = None
        self._status_code: int | None = None
        self._body_bytes = 0
        self._is_over = False

    def run(self, timeout_s: float | None) -> Ending:
        """Make the call.

        Args:
            timeout_s: how long to wait at most: later than the runtime should have answered.

        Raises:
            LocalProtocolError: the request cannot be written; nothing was sent.
            ControlError: the connection was lost, or there was no answer in time.
            OSError: the body cannot be read, or the taker cannot go on. As with all that ends
                this from here, KeyboardInterrupt too, the runtime is told to stop.
        """
        self._line.put(self._request)
        self._began_s = self._clock_s()
        try:
            while True:
                message = self._line.next_message()
                if message is None:
                    self._turn(timeout_s)
                elif (ending := self._take(message)) is not None:
                    return ending
        except ControlError:
            raise
        except BaseException:
            if not self._is_over:
                self._cancel()
            raise

    def _turn(self, timeout_s: float | None) -> None:
        if timeout_s is not None and self._passed_s() > timeout_s:
            raise TimeoutError(f"no answer from the runtime in {timeout_s:g} s")
        room_bytes = min(self._may_send.available_bytes, self._all_may_send.available_bytes)
        feeds = self._body is not None and room_bytes > 0 and not self._line.is_sending
        if self._line.turn(_TICK_S, self._body.fd if self._body and feeds else None):
            self._feed(min(room_bytes, _MAX_CHUNK_BYTES))
        self._taker.tick()

    def _feed(self, most_bytes: int) -> None:
        """Send the next piece of the body."""
        assert self._body is not None
        data, is_last = self._body.read(most_bytes)
        self._may_send.take(len(data))
        self._all_may_send.take(len(data))
        self._line.put(RequestChunk(self._request.request_id, self._sequence, data, is_last))
        self._sequence += 1
        if is_last:
            self._body = None

    def _take(self, message: Message) -> Ending | None:
        """Do what a message says; how it ended, if it did."""
        request_id = self._request.request_id
        match message:
            case StreamStart(request_id=found) if found == request_id:
                self._head_s = self._passed_s()
                self._head(message.status_code, message.headers or (), None)
            case StreamChunk(request_id=found) if found == request_id:
                self._data(message.data)
            case CreditUpdate():
                self._credit(message)
            case StreamEnd(request_id=found) if found in {0, request_id}:
                return self._ending(message)
            case ExecuteResponse(request_id=found) if found in {0, request_id}:
                return self._answered(message)
            case _:
                pass  # a sign of life, or a word about calls to come
        return None

    def _head(self, status_code: int, headers: KeyValues, http_version: str | None) -> None:
        self._status_code = status_code
        self._taker.head(status_code, headers, http_version)

    def _data(self, data: Buffer | Sequence[Buffer] | None) -> None:
        # A decoded message holds one buffer; only those to be sent may hold several.
        assert data is None or isinstance(data, bytes | bytearray | memoryview)
        if not data:
            return
        if self._first_byte_s is None:
            self._first_byte_s = self._passed_s()
        size = len(data)
        self._window.received(size)
        self._shared_window.received(size)
        self._body_bytes += size
        self._taker.data(data)
        # Nobody else is on this line: what is due to the connection may wait as well.
        granted = CreditUpdate(
            credit_delta=self._window.consumed(size),
            request_id=self._request.request_id,
            connection_bytes=self._shared_window.consumed(size),
        )
        if granted.credit_delta or granted.connection_bytes:
            self._line.put(granted)

    def _credit(self, update: CreditUpdate) -> None:
        self._all_may_send.grant(update.connection_bytes)
        if update.request_id == self._request.request_id:
            self._may_send.grant(update.credit_delta)

    def _answered(self, answer: ExecuteResponse) -> Ending:
        """An answer that came as a whole."""
        ending = self._ending(answer)
        if answer.error_class is not ErrorClass.SUCCESS:
            return ending
        if answer.payload_format is not PayloadFormat.NATIVE or answer.payload is None:
            raise ControlError("this runtime does not speak the native payload format")
        assert isinstance(answer.payload, bytes | bytearray | memoryview)
        try:
            response = decode_http_response(answer.payload)
        except ProtocolError as error:
            raise ControlError(f"a bad answer: {error}") from None
        self._head(response.status_code, response.headers, response.http_version)
        body = response.body
        assert body is None or isinstance(body, bytes | bytearray | memoryview)
        if body:
            self._taker.data(body)
        return attrs.evolve(ending, status_code=response.status_code, body_bytes=len(body or b""))

    def _ending(self, last: StreamEnd | ExecuteResponse) -> Ending:
        self._is_over = True
        return Ending(
            error_class=last.error_class,
            message=last.error_message,
            disposition=last.disposition,
            attempts=last.attempts,
            duration_us=last.duration_us,
            retry_after_ms=last.retry_after_ms,
            status_code=self._status_code,
            body_bytes=self._body_bytes,
            total_s=self._passed_s(),
            head_s=self._head_s,
            first_byte_s=self._first_byte_s,
            queued_us=last.queued_us,
            backoff_us=last.backoff_us,
            refused_by=last.refused_by,
        )

    def _passed_s(self) -> float:
        return self._clock_s() - self._began_s

    def _cancel(self) -> None:
        """Have the runtime stop the call, and read what it says last."""
        ends_at_s = time.monotonic() + _CANCEL_WITHIN_S
        try:
            self._line.put(Cancel(self._request.request_id))
            while (left_s := ends_at_s - time.monotonic()) > 0:
                message = self._line.next_message()
                if message is None:
                    self._line.turn(left_s)
                elif isinstance(message, StreamEnd | ExecuteResponse):
                    return
        except (ControlError, ProtocolError):
            return  # closing the connection says the same
